//! The users of the original's load test, simulated with goose. Three in four users
//! read, and one in four requests the active session in bursts. They run in a separate
//! process, which prints all requests and their results as JSON.

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

/// Pause of a reading user between two requests, as in the original: shortest, longest.
const REQUEST_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Pause of a burst user between two bursts, as in the original.
const BURST_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// Requests in a burst.
const BURST_SIZE: usize = 5;

/// Bursts until a burst user continues as another reader. The rate limit allows a reader
/// 30 calls per minute.
pub const BURSTS: usize = 5;

/// Time in which the users start, one after the other.
const RAMP_UP: Duration = Duration::from_secs(5);

/// The output of the process that runs the users.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct UserOutput {
    /// Kind, latency in microseconds, and status of each request. The status is 0 if there
    /// was no response.
    pub requests: Vec<(Kind, u32, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Start,
    Update,
    End,
    /// The first page of the history.
    History,
    /// The active session.
    Active,
}

impl Kind {
    /// Whether the request appends events.
    pub const fn is_command(self) -> bool {
        matches!(self, Self::Start | Self::Update | Self::End)
    }
}

type Record = Arc<Mutex<Vec<(Kind, u32, u16)>>>;

/// The state of a user's app.
#[derive(Clone)]
struct UserApp {
    token: String,
    session: Option<Uuid>,
    position: u32,
    bursts: usize,
    record: Record,
}

impl UserApp {
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

/// Runs the users and prints their requests.
#[expect(clippy::print_stdout, reason = "the parent process reads the output")]
pub async fn run(address: SocketAddr, users: usize, length: Duration) -> anyhow::Result<()> {
    let record = Record::default();
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(format!("http://{address}"));
    configuration.users = Some(users);
    configuration.increase_time = Some(format!("{}s", RAMP_UP.as_secs()));
    configuration.run_time = Some(format!("{}s", length.as_secs()));
    configuration.quiet = 3;
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    // Three reading users for each burst user.
    let reading = Scenario::new("ReadingSessionUser")
        .set_weight(3)?
        .set_wait_time(REQUEST_PAUSE.0, REQUEST_PAUSE.1)?
        .register_transaction(create_app(&record))
        .register_transaction(transaction!(random_request));
    let bursting = Scenario::new("BurstUser")
        .set_weight(1)?
        .set_wait_time(BURST_PAUSE.0, BURST_PAUSE.1)?
        .register_transaction(create_app(&record))
        .register_transaction(transaction!(burst));
    let attack = GooseAttack::initialize_with_config(configuration)?
        .set_scheduler(GooseScheduler::Random)
        .register_scenario(reading)
        .register_scenario(bursting);
    Box::pin(attack.execute()).await?;
    let output = UserOutput {
        requests: std::mem::take(&mut *record.lock().unwrap_or_else(PoisonError::into_inner)),
    };
    println!("{}", serde_json::to_string(&output)?);
    Ok(())
}

/// Creates the app of a user before the first request.
fn create_app(record: &Record) -> Transaction {
    let record = Arc::clone(record);
    let create = move |user: &mut GooseUser| {
        user.set_session_data(UserApp::new(Arc::clone(&record)));
        Ok(())
    };
    Transaction::new(Arc::new(move |user| {
        let created = create(user);
        Box::pin(async move { created })
    }))
    .set_on_start()
}

/// Sends one of four requests with the weights of the original. In goose, all users
/// would repeat the same order; in the original, each user chooses each time.
async fn random_request(user: &mut GooseUser) -> TransactionResult {
    match Uuid::new_v4().as_u128() % 100 {
        0..30 => start(user).await,
        30..80 => update(user).await,
        80..90 => end(user).await,
        _ => history(user).await,
    }
}

async fn start(user: &mut GooseUser) -> TransactionResult {
    let body = json!({ "book_id": Uuid::new_v4(), "device_type": "mobile" });
    let session = call(user, Kind::Start, GooseMethod::Post, "start", Some(body)).await?;
    let app = app(user)?;
    app.session = session["id"].as_str().and_then(|id| id.parse().ok());
    app.position = 0;
    Ok(())
}

/// Updates the session. A user without a session starts one, as an app would.
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

/// Sends the requests of one burst. After [`BURSTS`] bursts, the user continues as a new
/// reader. The new reader starts a session before its first burst.
async fn burst(user: &mut GooseUser) -> TransactionResult {
    let current = app(user)?;
    if current.session.is_none() || current.bursts == BURSTS {
        let next = UserApp::new(Arc::clone(&current.record));
        *current = next;
        return start(user).await;
    }
    current.bursts += 1;
    for _ in 0..BURST_SIZE {
        call(user, Kind::Active, GooseMethod::Get, "active", None).await?;
    }
    Ok(())
}

fn app(user: &mut GooseUser) -> Result<&mut UserApp, Box<TransactionError>> {
    let app = user.get_session_data_mut::<UserApp>();
    app.ok_or_else(|| Box::new("the user has no app".into()))
}

/// Sends a request, records it, and returns the body of the response.
async fn call(
    user: &mut GooseUser,
    kind: Kind,
    method: GooseMethod,
    path: &str,
    body: Option<Value>,
) -> Result<Value, Box<TransactionError>> {
    let path = format!("/api/v1/reading-sessions/{path}");
    let UserApp { token, record, .. } = app(user)?.clone();
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

/// Parses the output of the process that ran the users.
pub fn parse(output: &[u8]) -> anyhow::Result<UserOutput> {
    let text = std::str::from_utf8(output)?;
    let line = text
        .lines()
        .next_back()
        .context("the users printed nothing")?;
    serde_json::from_str(line).context("the output of the users is invalid")
}
