//! Promise I9: what the API returns is a function of the set of observations. The
//! same history is delivered to several readers in different orders, with repeats
//! and in different calls; all of them get the same answers.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use eventlog::clock;
use futures::future::join_all;
use futures::{StreamExt, stream};
use tests::facts::{Call, Device, Expected, Ids, Order, Plan, Shape, Tolerance, delivery, view};
use tests::process::command;
use tests::random_history::Random;
use tests::{App, Reader, eventually_ok, invariants};

/// Time in which new histories begin, in seconds, unless `HISTORIES_SECONDS` is set.
const DEFAULT_SECONDS: u64 = 8;

/// Histories that are delivered at the same time.
const HISTORIES: u64 = 3;

/// Time limit for one call, with repeats of refused conflicts.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls of one reader that are in progress at the same time.
const CONCURRENT_CALLS: usize = 4;

fn limit() -> Duration {
    let seconds = std::env::var("HISTORIES_SECONDS");
    Duration::from_secs(seconds.map_or(DEFAULT_SECONDS, |text| text.parse().unwrap()))
}

/// A seed, or the value of `HISTORIES_SEED`, which repeats a run.
fn seed() -> u64 {
    let seed = std::env::var("HISTORIES_SEED").map_or_else(
        |_| clock::now().timestamp_millis().unsigned_abs(),
        |text| text.parse().unwrap(),
    );
    println!("HISTORIES_SEED={seed}");
    seed
}

/// A random generator for one part of a run.
fn random(seed: u64, part: u64) -> Random {
    Random((seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
}

async fn send(reader: &Reader, call: &Call, plan: &Plan, ids: &Ids, device: Device) {
    let response = eventually_ok("a decision", CALL_TIMEOUT, async || {
        let (method, path, body) = call.request(plan, ids, device);
        let response = reader.call(method, &path, Some(body)).await;
        match response.status.as_u16() {
            409 | 503 => Err(format!("{call:?}: {}", response.body)),
            _ => Ok(response),
        }
    })
    .await;
    call.check(&response);
}

/// A reader whose app delivers a history in some way.
struct Delivery {
    reader: Reader,
    ids: Ids,
    calls: Vec<Call>,
    device: Device,
    concurrent: bool,
}

impl Delivery {
    fn new(app: &App, plan: &Plan, random: &mut Random, order: Order) -> Self {
        Self {
            reader: app.reader(),
            ids: Ids::new(plan),
            calls: delivery::calls(plan, random, order),
            device: Device::PUNCTUAL,
            concurrent: false,
        }
    }

    async fn run(&self, plan: &Plan) {
        let send = |call| send(&self.reader, call, plan, &self.ids, self.device);
        if !self.concurrent {
            for call in &self.calls {
                send(call).await;
            }
            return;
        }
        // A session must have started before anything else arrives.
        let (starts, others): (Vec<_>, Vec<_>) = self
            .calls
            .iter()
            .partition(|call| matches!(call, Call::Start(_) | Call::Sync(_)));
        for call in starts {
            send(call).await;
        }
        stream::iter(others)
            .map(send)
            .buffer_unordered(CONCURRENT_CALLS)
            .collect::<Vec<()>>()
            .await;
    }
}

/// A history and the readers to whom it is delivered.
struct History {
    plan: Plan,
    deliveries: Vec<Delivery>,
}

impl History {
    async fn run(&self) {
        join_all(self.deliveries.iter().map(|one| one.run(&self.plan))).await;
    }

    async fn check(&self, expected: &Expected, tolerance: Tolerance, seed: u64) {
        for delivery in &self.deliveries {
            let context = format!("seed {seed}\n{:#?}\n{:#?}", self.plan, delivery.calls);
            let Delivery { reader, ids, .. } = delivery;
            view::check(reader, ids, expected, tolerance, &context).await;
        }
    }
}

async fn verify(app: &App) {
    let output = command(&app.env).args(["verify", "-o", "json"]).output();
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["equal"], true, "{text}");
}

#[tokio::test]
async fn observations_in_any_order_give_the_same_answers() {
    let app = App::start().await;
    let seed = seed();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < limit() {
        let histories = (count..count + HISTORIES).map(|number| {
            let mut random = random(seed, number);
            let shape = [Shape::RECENT, Shape::DAYS][usize::from(number % 2 == 0)];
            let plan = Plan::random(&mut random, clock::now(), shape);
            let mut deliveries: Vec<Delivery> = Order::ALL
                .into_iter()
                .chain([Order::Shuffled])
                .map(|order| Delivery::new(&app, &plan, &mut random, order))
                .collect();
            deliveries.last_mut().unwrap().concurrent = true;
            History { plan, deliveries }
        });
        let histories: Vec<History> = histories.collect();
        join_all(histories.iter().map(History::run)).await;
        app.settled().await;
        for history in &histories {
            let expected = Expected::from_plan(&history.plan);
            history.check(&expected, Tolerance::Exact, seed).await;
        }
        count += HISTORIES;
    }
    println!("{count} histories");
    invariants::check(&app).await;
    verify(&app).await;
}

/// The clocks of the devices are wrong, and each call carries `sent_at`.
#[tokio::test]
async fn observations_of_wrong_clocks_give_the_same_answers() {
    let app = App::start().await;
    let seed = seed();
    let ahead = [
        TimeDelta::minutes(12),
        TimeDelta::hours(3),
        -TimeDelta::minutes(50),
        -TimeDelta::days(26 * 365),
    ];
    let histories = (0..HISTORIES).map(|number| {
        let mut random = random(seed, number);
        let plan = Plan::random(&mut random, clock::now(), Shape::SPACED);
        let deliveries = Order::ALL.into_iter().zip(ahead).map(|(order, ahead)| {
            let mut delivery = Delivery::new(&app, &plan, &mut random, order);
            delivery.device.ahead = Some(ahead);
            delivery
        });
        let deliveries = deliveries.collect();
        History { plan, deliveries }
    });
    let histories: Vec<History> = histories.collect();
    join_all(histories.iter().map(History::run)).await;
    app.settled().await;
    for history in &histories {
        let expected = Expected::from_plan(&history.plan);
        history.check(&expected, Tolerance::Seconds(10), seed).await;
    }
    invariants::check(&app).await;
    verify(&app).await;
}
