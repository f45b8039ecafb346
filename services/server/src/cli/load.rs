//! `reading-sessions load`: the load test of the original service against any deployment,
//! over its public API.
//!
//! The command needs no server but the deployment. It writes real sessions, and removes
//! only data of readers that it created.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::TimeDelta;
use clap::Args;
use eventlog::clock;
use eventlog::error::error_chain;
use reqwest::Url;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

mod scenario;

mod clean_up;
mod criteria;
mod figures;
mod http;
mod live;
mod readers;
mod report;
mod request;
mod stop_signals;

use super::format::{count, counted};
use super::output::{OutputArgs, report};
use crate::app;
use crate::config::AuthArgs;
use criteria::Criteria;
use figures::Figures;
use http::{Api, parse_address};
use readers::{ListedReaders, NewReaders, Readers};
use report::{Conditions, Report};
use scenario::{BURST_SHARE, OpenSession, READERS_PER_BURST_USER, User};
use stop_signals::StopSignals;

/// The exit code if a criterion is not met.
const NOT_MET: u8 = 1;

/// The exit code if the run did not start, or its report could not be written.
const NOT_RUN: u8 = 2;

/// The exit code if `--erase` left data, whether or not the criteria are met.
const NOT_ERASED: u8 = 3;

/// How long signed tokens are valid after the run, for the requests that end or erase.
const TOKEN_RESERVE: TimeDelta = TimeDelta::hours(1);

#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Address of the public API, for example `https://reading.example`.
    #[arg(value_name = "ADDRESS", value_parser = parse_address)]
    address: Url,
    /// Number of simulated users, at most 10,000.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    users: u32,
    /// Length of the run in seconds, from the first request on; at most a day.
    #[arg(long, default_value = "300", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Users that start per second.
    #[arg(
        long,
        value_name = "USERS",
        default_value = "10",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    spawn_rate: u32,
    /// File with tokens of existing readers, one per line.
    ///
    /// Each user takes the next reader. Without this option, every user is a new reader; the
    /// command signs the token with `JWT_SECRET` or `JWT_SECRET_FILE`.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Erase all data of the new readers after the run.
    #[arg(long, conflicts_with = "tokens")]
    erase: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    criteria: Criteria,
    #[command(flatten)]
    auth: AuthArgs,
}

/// The state that all users of a run share.
struct Load {
    api: Api,
    readers: Readers,
    figures: Mutex<Figures>,
    /// Users that have started.
    users: AtomicUsize,
}

impl Load {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> usize {
        self.users.load(Ordering::Relaxed)
    }
}

/// The exit code distinguishes a run that missed a criterion from one that failed.
pub async fn run(args: &LoadArgs) -> ExitCode {
    let finished = match run_and_print(args).await {
        Ok(finished) => finished,
        Err(error) => {
            report(&format!("Error: {}", error_chain(error.as_ref())));
            return ExitCode::from(NOT_RUN);
        }
    };
    if let Some((count, error)) = finished.not_erased() {
        let readers = counted(count, "reader", "readers");
        report(&format!(
            "Error: erasing {readers} failed: {error}; the report contains a command that erases \
             their data"
        ));
        ExitCode::from(NOT_ERASED)
    } else if finished.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_MET)
    }
}

async fn run_and_print(args: &LoadArgs) -> anyhow::Result<Report> {
    let load = Arc::new(prepare(args).await?);
    let finished = measure(args, &load).await?;
    args.output.print(&finished, || finished.text())?;
    Ok(finished)
}

/// Finds the readers, and checks that the service accepts their tokens.
async fn prepare(args: &LoadArgs) -> anyhow::Result<Load> {
    let users = usize::try_from(args.users)?;
    let readers = if let Some(path) = &args.tokens {
        let listed = ListedReaders::from_file(path, users).await?;
        let needed = users + users / BURST_SHARE * (READERS_PER_BURST_USER - 1);
        if listed.count() < needed {
            report(&format!(
                "Note: with {} tokens, burst users may exceed the default rate limits of their \
                 readers; {} tokens are enough for {} users",
                count(listed.count()),
                count(needed),
                count(users)
            ));
        }
        Readers::Listed(listed)
    } else {
        if args.auth.jwt_secret.is_none() && args.auth.jwt_secret_file.is_none() {
            bail!(
                "readers need tokens: pass --tokens FILE, or set JWT_SECRET or JWT_SECRET_FILE to \
                 the secret of the deployment"
            );
        }
        let secret = args.auth.secret()?;
        let valid = TimeDelta::seconds(i64::from(args.seconds)) + TOKEN_RESERVE;
        let expires_at = (clock::now() + valid).timestamp();
        Readers::New(NewReaders::new(secret, args.auth.claims(), expires_at))
    };
    let api = Api::new(&args.address)?;
    // Users share connections, but a slow service needs one for each.
    app::raise_limit(0);
    let first = readers.first().context("signing a token failed")?;
    api.check(&first).await?;
    Ok(Load {
        api,
        readers,
        figures: Mutex::new(Figures::new()),
        users: AtomicUsize::new(0),
    })
}

/// Runs the users, ends or erases what they left, and reports.
async fn measure(args: &LoadArgs, load: &Arc<Load>) -> anyhow::Result<Report> {
    let address = args.address.as_str().trim_end_matches('/');
    report(&format!(
        "Loading {address} with {} for {} s. The sessions are real: the service stores them.",
        counted(args.users, "user", "users"),
        args.seconds
    ));
    let signals = StopSignals::listen()?;
    let started = Instant::now();
    let users = run_users(args, load, &signals.first);
    let (open, length) = tokio::select! {
        (open, length) = live::show(load, args.seconds, &signals.first, users) => (Some(open), length),
        () = signals.second.cancelled() => (None, started.elapsed()),
    };
    let readers = clean_up::run(load, open, args.erase, signals.next()).await;
    let conditions = Conditions {
        users: load.users(),
        length,
        was_stopped: length < Duration::from_secs(args.seconds.into()),
    };
    let figures = load.figures();
    Ok(Report::new(
        address,
        conditions,
        &figures,
        args.criteria,
        readers,
    ))
}

/// Starts the users one after the other. Stops them after the length of the run or when
/// `stop` is cancelled, and waits for their requests in progress. Returns the sessions that
/// are active, and the time until the users were stopped.
async fn run_users(
    args: &LoadArgs,
    load: &Arc<Load>,
    stop: &CancellationToken,
) -> (Vec<OpenSession>, Duration) {
    let started = Instant::now();
    let is_over = stop.child_token();
    let mut users = JoinSet::new();
    let start_users = async {
        for number in 0..args.users {
            let wait = f64::from(number) / f64::from(args.spawn_rate);
            sleep_until((started + Duration::from_secs_f64(wait)).into()).await;
            let number = load.users.fetch_add(1, Ordering::Relaxed);
            let user = User::new(Arc::clone(load), number);
            users.spawn(user.run(is_over.clone()));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = start_users => {}
        () = sleep(Duration::from_secs(args.seconds.into())) => {}
        () = stop.cancelled() => {}
    }
    let length = started.elapsed();
    is_over.cancel();
    let open = users.join_all().await.into_iter().flatten().collect();
    (open, length)
}
