//! Random late, repeated and reordered traffic over two API processes, while API
//! processes and projection workers are killed with SIGKILL. Afterwards every
//! reader gets the answers of the reference implementation, and the read models
//! equal the log.
//!
//! `make campaign SECONDS=600` runs it for ten minutes.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eventlog::clock;
use futures::FutureExt;
use futures::future::join_all;
use tests::facts::{Call, Device, Expected, Ids, Order, Plan, Shape, Tolerance, delivery, view};
use tests::process::{Process, command};
use tests::random_history::Random;
use tests::stack::TestEnv;
use tests::{ApiResponse, Reader, Stack, app, eventually_ok, invariants, scaled, until};
use uuid::Uuid;

/// Duration of the traffic in seconds, unless `CAMPAIGN_SECONDS` is set.
const DEFAULT_SECONDS: u64 = 30;

/// Readers that send calls at the same time.
const READERS: u64 = 8;

/// The largest number of answered calls between two kills.
const MAX_CALLS_BETWEEN_KILLS: u64 = 300;

/// Time limit for one call, with all its repeats.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);

/// Time limit of the projections after the last kill.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(2);

const API_ROLES: [&str; 3] = ["api", "relay", "jobs"];
const WORKER_ROLES: [&str; 1] = ["projections"];

/// A process that is killed and started again.
struct Victim {
    roles: &'static [&'static str],
    process: Option<Process>,
}

impl Victim {
    async fn start(env: &TestEnv, roles: &'static [&'static str]) -> Self {
        let process = Process::start_roles(env, roles, &[]).await;
        Self {
            roles,
            process: Some(process),
        }
    }

    async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await;
    }

    async fn kill_and_restart(&mut self, env: &TestEnv) {
        self.kill().await;
        self.process = Some(Process::start_roles(env, self.roles, &[]).await);
    }

    fn url(&self) -> String {
        self.process.as_ref().expect("it runs").url.clone()
    }
}

/// The state that traffic and kills share.
struct Campaign {
    env: TestEnv,
    seed: u64,
    /// The addresses of the API processes, also of one that was just killed.
    urls: Mutex<Vec<String>>,
    answered: AtomicU64,
    unanswered: AtomicU64,
    /// The numbers of the next readers.
    next: AtomicU64,
    over: AtomicBool,
}

/// A reader whose history was delivered completely.
struct Delivered {
    reader: Reader,
    ids: Ids,
    plan: Plan,
    calls: Vec<Call>,
    number: u64,
}

impl Campaign {
    fn random(&self, number: u64) -> Random {
        Random((self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn url(&self, random: &mut Random) -> String {
        let urls = self.urls.lock().unwrap();
        let count = u64::try_from(urls.len()).unwrap();
        urls[usize::try_from(random.below(count)).unwrap()].clone()
    }

    /// Repeats a call, at a random process each time, until it is decided.
    async fn send(
        &self,
        reader: &Reader,
        call: &Call,
        plan: &Plan,
        ids: &Ids,
        random: &mut Random,
    ) -> ApiResponse {
        eventually_ok("a decision", CALL_TIMEOUT, async || {
            let (method, path, body) = call.request(plan, ids, Device::PUNCTUAL);
            let reader = reader.at(&self.url(random));
            match reader.try_call(method, &path, Some(body)).await {
                Ok(response) if matches!(response.status.as_u16(), 409 | 503) => {
                    Err(response.body.to_string())
                }
                Ok(response) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    Ok(response)
                }
                Err(error) => {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                    Err(error.to_string())
                }
            }
        })
        .await
    }

    /// Delivers one history after another, each to a new reader.
    async fn traffic(&self) -> Vec<Delivered> {
        let mut delivered = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let mut random = self.random(number);
            let shape = [Shape::RECENT, Shape::DAYS][usize::from(number.is_multiple_of(2))];
            let plan = Plan::random(&mut random, clock::now(), shape);
            let order = Order::ALL[usize::try_from(number % 4).unwrap()];
            let (reader, ids) = (Reader::with_id(Uuid::new_v4()), Ids::new(&plan));
            let calls = delivery::calls(&plan, &mut random, order);
            for call in &calls {
                let response = self.send(&reader, call, &plan, &ids, &mut random).await;
                call.check(&response);
            }
            delivered.push(Delivered {
                reader,
                ids,
                plan,
                calls,
                number,
            });
        }
        delivered
    }

    /// Kills a random process after a random number of calls, until `limit` has passed.
    async fn kill(&self, victims: &mut [Victim], limit: Duration) -> [usize; 4] {
        let mut random = self.random(u64::MAX);
        let mut kills = [0; 4];
        let started = Instant::now();
        while started.elapsed() < limit {
            let until_kill = 1 + random.below(MAX_CALLS_BETWEEN_KILLS);
            let at = self.answered.load(Ordering::Relaxed) + until_kill;
            until("more answered calls", CALL_TIMEOUT, async || {
                self.answered.load(Ordering::Relaxed) >= at
            })
            .await;
            let index = random.below_u32(4) as usize;
            victims[index].kill_and_restart(&self.env).await;
            kills[index] += 1;
            if let Some(url) = self.urls.lock().unwrap().get_mut(index) {
                *url = victims[index].url();
            }
        }
        kills
    }
}

#[tokio::test]
async fn random_traffic_and_kills_leave_the_expected_answers() {
    let seconds = std::env::var("CAMPAIGN_SECONDS");
    let limit = seconds.map_or(DEFAULT_SECONDS, |text| text.parse().unwrap());
    let seed = clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    let mut victims = Vec::new();
    for roles in [&API_ROLES[..], &API_ROLES, &WORKER_ROLES, &WORKER_ROLES] {
        victims.push(Victim::start(&env, roles).await);
    }
    let urls = victims[..2].iter().map(Victim::url);
    let campaign = Campaign {
        urls: Mutex::new(urls.collect()),
        env: env.clone(),
        seed,
        answered: AtomicU64::new(0),
        unanswered: AtomicU64::new(0),
        next: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let traffic = join_all((0..READERS).map(|_| campaign.traffic()));
    let kills = async {
        let limit = Duration::from_secs(limit);
        let kills = campaign.kill(&mut victims, limit).await;
        campaign.over.store(true, Ordering::Relaxed);
        kills
    };
    let (delivered, kills) = tokio::join!(traffic, kills);
    let delivered: Vec<Delivered> = delivered.into_iter().flatten().collect();
    println!(
        "{} readers, {} calls answered, {} not; kills of API processes and workers: {kills:?}",
        delivered.len(),
        campaign.answered.load(Ordering::Relaxed),
        campaign.unanswered.load(Ordering::Relaxed),
    );
    assert!(kills.iter().sum::<usize>() > 0);

    eventually_ok("projections at the end", CATCH_UP_TIMEOUT, async || {
        app::caught_up(&pool, &env).await
    })
    .await;
    for Delivered {
        reader,
        ids,
        plan,
        calls,
        number,
    } in &delivered
    {
        let reader = reader.at(&victims[0].url());
        let context = format!("seed {seed}, reader {number}\n{plan:#?}\n{calls:#?}");
        let expected = Expected::from_plan(plan);
        let check = view::check(&reader, ids, &expected, Tolerance::Exact, &context);
        if let Err(panic) = AssertUnwindSafe(check).catch_unwind().await {
            for event in invariants::read_log(&pool).await {
                if ids.0.iter().any(|id| id.to_string() == event.session_id) {
                    println!("{}/{} {}", event.session_id, event.sequence, event.payload);
                }
            }
            resume_unwind(panic);
        }
    }
    invariants::check_env(&pool, &env).await;
    let verified = command(&env).args(["verify", "-o", "json"]).output();
    let verified = tokio::time::timeout(scaled(CATCH_UP_TIMEOUT), verified);
    let verified = verified.await.unwrap().unwrap();
    let report = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(0), "{report}");
    for mut victim in victims {
        victim.kill().await;
    }
}
