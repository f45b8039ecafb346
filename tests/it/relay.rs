//! I4: one relay leads, whoever commits wakes it, another takes over when it is
//! gone, and none publishes what was published before.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Stream;
use eventlog::{Subjects, read};
use futures::StreamExt;
use services::config::Role;
use services::connect;
use sqlx::PgPool;
use tests::process::Process;
use tests::stack::Corner;
use tests::{App, Reader, Stack, app, check, stream};
use uuid::Uuid;

/// How long a relay that is silent may lead, and the next one may take to begin.
const SUCCESSION: Duration = Duration::from_secs(20);

async fn until<T>(longest: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < longest, "not within {longest:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The database's sessions of relays, by the number of their process there.
async fn relays(pool: &PgPool) -> Vec<i32> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity
        where datname = current_database() and application_name = 'reading-sessions-relay'",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Whether a relay leads.
async fn led(pool: &PgPool) -> Option<()> {
    let led: bool = sqlx::query_scalar(
        "select exists (select from pg_locks where locktype = 'advisory' and objid = 7340002
            and granted and database = (select oid from pg_database where datname = current_database()))",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    led.then_some(())
}

async fn the_stream(corner: &Corner) -> Stream {
    let jetstream = connect::jetstream(&app::settings(corner, &[]).nats)
        .await
        .unwrap();
    let name = Subjects::new(&corner.nats_prefix).stream().to_owned();
    jetstream.get_stream(name).await.unwrap()
}

#[tokio::test]
async fn an_emptied_stream_is_not_filled_with_the_whole_log_again() {
    let app = App::start().await;
    let (stack, corner) = (app.stack.clone(), app.corner.clone());
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    check::everything(&app).await;
    app.stop().await;
    the_stream(&corner).await.purge().await.unwrap();

    // At each try the relay asks for the stream's last message.
    let jetstream = connect::jetstream(&app::settings(&corner, &[]).nats)
        .await
        .unwrap();
    let name = Subjects::new(&corner.nats_prefix).stream().to_owned();
    let asks = format!("$JS.API.STREAM.MSG.GET.{name}");
    let nats = jetstream.client();
    let tries = nats.subscribe(asks).await.unwrap();
    nats.flush().await.unwrap();
    let app = App::run(stack, corner.clone(), &app::settings(&corner, &Role::ALL)).await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    let three = tries.take(3).collect::<Vec<_>>();
    assert_eq!(
        tokio::time::timeout(SUCCESSION, three).await.unwrap().len(),
        3
    );
    assert_eq!(stream::read_all(&corner).await.len(), 0);

    // As the error says: whoever wants all of it again deletes the stream.
    jetstream.delete_stream(name.clone()).await.unwrap();
    until(app::SETTLE, async || jetstream.get_stream(&name).await.ok()).await;
    check::everything(&app).await;
}

#[tokio::test]
async fn a_process_whose_relay_does_not_lead_wakes_the_one_that_does() {
    let app = App::start().await;
    until(app::SETTLE, async || led(&app.pool).await).await;
    let other = app.beside(&Role::ALL).await;
    let nats = connect::jetstream(&app::settings(&app.corner, &[]).nats)
        .await
        .unwrap()
        .client();
    let wake = Subjects::new(&app.corner.nats_prefix).wake().to_owned();
    let mut wakeups = nats.subscribe(wake).await.unwrap();
    nats.flush().await.unwrap();

    let _ = other.reader().start(Uuid::new_v4()).await.ok();
    let woken = tokio::time::timeout(app::SETTLE, wakeups.next()).await;
    assert!(woken.unwrap().is_some());
    check::everything(&app).await;
}

#[tokio::test]
async fn a_relay_that_hangs_loses_the_lead_and_publishes_nothing_afterwards() {
    let corner = Stack::shared().await.corner().await;
    let pool = app::pool(&corner).await;
    let hung = Process::start(&corner).await;
    let reader = Reader::of(Uuid::new_v4());
    let _ = reader.at(&hung.url).start(Uuid::new_v4()).await.ok();
    app::settled(&pool, &corner).await;
    until(app::SETTLE, async || led(&pool).await).await;
    let leader = relays(&pool).await;
    // In the middle of its work.
    let busy = reader.at(&hung.url);
    let work = tokio::spawn(async move {
        loop {
            let _ = busy.start(Uuid::new_v4()).await.ok();
        }
    });
    let head = read::head(&pool).await.unwrap();
    until(app::SETTLE, async || {
        (read::head(&pool).await.unwrap() > head + 20).then_some(())
    })
    .await;
    hung.signal("-STOP").await;
    work.abort();

    let next = Process::start(&corner).await;
    let _ = reader.at(&next.url).start(Uuid::new_v4()).await.ok();
    until(SUCCESSION, async || {
        let relays = relays(&pool).await;
        (!leader.iter().any(|pid| relays.contains(pid))).then_some(())
    })
    .await;
    app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;

    let before = relays(&pool).await;
    hung.signal("-CONT").await;
    until(app::SETTLE, async || {
        let relays = relays(&pool).await;
        relays.iter().any(|pid| !before.contains(pid)).then_some(())
    })
    .await;
    let _ = reader.at(&next.url).start(Uuid::new_v4()).await.ok();
    app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;
}
