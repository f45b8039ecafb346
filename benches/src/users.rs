//! The users of the original's load test, as goose users: three in four read,
//! one in four asks for the active session in bursts. They run in a process of
//! their own, which tells what they met on its standard output.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use goose::config::GooseConfiguration;
use goose::goose::{
    GooseMethod, GooseRequest, GooseUser, Scenario, Transaction, TransactionError,
    TransactionResult,
};
use goose::{GooseAttack, GooseScheduler, transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tests::app::token;
use uuid::Uuid;

/// The original's think times: of a reader between two requests, and of a burst
/// user between two bursts.
const READING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));
const RESTING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// Requests of a burst.
const BURST: usize = 5;

/// Bursts until a burst user goes on as another reader: a reader may make 30
/// calls a minute.
pub const BURSTS: usize = 5;

/// How long the users take to come, one after the other.
const COMING: Duration = Duration::from_secs(5);

/// What users met, by the kind of request.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Met {
    /// A request of each kind: how long it took, in microseconds, and its status;
    /// 0 without an answer.
    pub requests: Vec<(Kind, u32, u16)>,
    /// CPU time of the users' process, in microseconds.
    pub cpu_us: u64,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A session is started.
    Start,
    /// It moves on.
    Update,
    /// It ends.
    End,
    /// The first page of the history.
    History,
    /// The active session.
    Active,
}

impl Kind {
    /// Whether it writes.
    pub const fn is_command(self) -> bool {
        matches!(self, Self::Start | Self::Update | Self::End)
    }
}

type Record = Arc<Mutex<Vec<(Kind, u32, u16)>>>;

/// A user's app.
#[derive(Clone)]
struct App {
    token: String,
    session: Option<Uuid>,
    position: u32,
    bursts: usize,
    record: Record,
}

impl App {
    fn new(record: Record) -> Self {
        Self {
            token: token(Uuid::new_v4()),
            session: None,
            position: 0,
            bursts: 0,
            record,
        }
    }
}

/// Runs the users; prints what they met.
#[expect(clippy::print_stdout, reason = "its parent reads what they met")]
pub async fn run(address: SocketAddr, users: usize, length: Duration) -> anyhow::Result<()> {
    let record = Record::default();
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(format!("http://{address}"));
    configuration.users = Some(users);
    configuration.increase_time = Some(format!("{}s", COMING.as_secs()));
    configuration.run_time = Some(format!("{}s", length.as_secs()));
    configuration.quiet = 3;
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    // Weights that two scenarios share: three readers for each burst user.
    let reading = Scenario::new("ReadingSessionUser")
        .set_weight(3)?
        .set_wait_time(READING.0, READING.1)?
        .register_transaction(arrive(&record))
        .register_transaction(transaction!(something));
    let bursting = Scenario::new("BurstUser")
        .set_weight(1)?
        .set_wait_time(RESTING.0, RESTING.1)?
        .register_transaction(arrive(&record))
        .register_transaction(transaction!(burst));
    let attack = GooseAttack::initialize_with_config(configuration)?
        .set_scheduler(GooseScheduler::Random)
        .register_scenario(reading)
        .register_scenario(bursting);
    Box::pin(attack.execute()).await?;
    let met = Met {
        requests: std::mem::take(&mut *record.lock().unwrap_or_else(PoisonError::into_inner)),
        cpu_us: u64::try_from(crate::usage::own_cpu(std::process::id()).as_micros())?,
    };
    println!("{}", serde_json::to_string(&met)?);
    Ok(())
}

/// Gives a user an app, before the first request.
fn arrive(record: &Record) -> Transaction {
    let record = Arc::clone(record);
    let arrive = move |user: &mut GooseUser| {
        user.set_session_data(App::new(Arc::clone(&record)));
        Ok(())
    };
    Transaction::new(Arc::new(move |user| {
        let arrived = arrive(user);
        Box::pin(async move { arrived })
    }))
    .set_on_start()
}

/// One of four, by the weights of the original. Goose would have all users do
/// the same in the same order; there each user chooses each time.
async fn something(user: &mut GooseUser) -> TransactionResult {
    match Uuid::new_v4().as_u128() % 100 {
        0..30 => start(user).await,
        30..80 => update(user).await,
        80..90 => end(user).await,
        _ => history(user).await,
    }
}

async fn start(user: &mut GooseUser) -> TransactionResult {
    let body = json!({ "book_id": Uuid::new_v4(), "device_type": "mobile" });
    let answer = call(user, Kind::Start, GooseMethod::Post, "start", Some(body)).await?;
    let app = app(user)?;
    app.session = answer["id"].as_str().and_then(|id| id.parse().ok());
    app.position = 0;
    Ok(())
}

/// Who has no session open begins one, as an app would.
async fn update(user: &mut GooseUser) -> TransactionResult {
    let Some(session) = app(user)?.session else {
        return start(user).await;
    };
    let app = app(user)?;
    app.position = (app.position + 1) % 100;
    let body = json!({ "current_position": app.position });
    let path = format!("{session}/update");
    call(user, Kind::Update, GooseMethod::Put, &path, Some(body)).await?;
    Ok(())
}

async fn end(user: &mut GooseUser) -> TransactionResult {
    let Some(session) = app(user)?.session.take() else {
        return start(user).await;
    };
    let body = json!({ "end_position": app(user)?.position });
    let path = format!("{session}/end");
    call(user, Kind::End, GooseMethod::Put, &path, Some(body)).await?;
    Ok(())
}

async fn history(user: &mut GooseUser) -> TransactionResult {
    call(user, Kind::History, GooseMethod::Get, "history", None).await?;
    Ok(())
}

/// Five requests in a row. Now and then another reader takes over, who starts a
/// session and rests first.
async fn burst(user: &mut GooseUser) -> TransactionResult {
    let current = app(user)?;
    if current.session.is_none() || current.bursts == BURSTS {
        let next = App::new(Arc::clone(&current.record));
        *current = next;
        return start(user).await;
    }
    current.bursts += 1;
    for _ in 0..BURST {
        call(user, Kind::Active, GooseMethod::Get, "active", None).await?;
    }
    Ok(())
}

fn app(user: &mut GooseUser) -> Result<&mut App, Box<TransactionError>> {
    let app = user.get_session_data_mut::<App>();
    app.ok_or_else(|| Box::new("a user has no app".into()))
}

/// Makes a call, takes note of it, and returns the body.
async fn call(
    user: &mut GooseUser,
    kind: Kind,
    method: GooseMethod,
    path: &str,
    body: Option<Value>,
) -> Result<Value, Box<TransactionError>> {
    let path = format!("/api/v1/reading-sessions/{path}");
    let App { token, record, .. } = app(user)?.clone();
    let mut request = user.get_request_builder(&method, &path)?.bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let request = GooseRequest::builder()
        .name("call")
        .set_request_builder(request)
        .build();
    let sent = Instant::now();
    let response = user.request(request).await?.response;
    let (status, body) = match response {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.bytes().await {
                Ok(body) => (status, serde_json::from_slice(&body).unwrap_or_default()),
                Err(_) => (0, Value::Null),
            }
        }
        Err(_) => (0, Value::Null),
    };
    let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    record.push((kind, micros, status));
    Ok(body)
}

/// What a process said that ran users.
pub fn read(said: &[u8]) -> anyhow::Result<Met> {
    let text = std::str::from_utf8(said)?;
    let line = text.lines().next_back().context("the users said nothing")?;
    serde_json::from_str(line).context("the users said something else")
}
