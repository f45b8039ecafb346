//! `append_events` decides a batch command by command, in order. A conflicting
//! command is refused as a whole, the other commands are written, and no command
//! is tried twice.

use std::sync::OnceLock;

use sqlx::PgPool;
use tests::{Stack, app, invariants};
use uuid::Uuid;

/// The commands of a batch, as arguments of `append_events`.
#[derive(Default)]
struct Batch {
    events: Vec<(i32, &'static str, i64)>,
    claims: Vec<(i32, Uuid, Option<&'static str>, Option<&'static str>)>,
    keys: Vec<(i32, Uuid, &'static str)>,
}

/// The ends of two session ids; [`this_month`] completes them.
const A: &str = "-7000-8000-00000000000a";
const B: &str = "-7000-8000-00000000000b";

fn this_month(id: &str) -> String {
    // Read once, so that a session keeps its id throughout a test.
    static MILLIS: OnceLock<i64> = OnceLock::new();
    let millis = MILLIS.get_or_init(|| eventlog::clock::now().timestamp_millis());
    let hex = format!("{millis:012x}");
    format!("{}-{}{id}", &hex[..8], &hex[8..])
}

impl Batch {
    fn of(events: &[(i32, &'static str, i64)]) -> Self {
        Self {
            events: events.to_vec(),
            ..Self::default()
        }
    }

    /// Returns the refused commands in order, and the number of events written.
    async fn append(&self, pool: &PgPool) -> (Vec<i32>, usize) {
        fn column<T, U>(rows: &[T], column: impl Fn(&T) -> U) -> Vec<U> {
            rows.iter().map(column).collect()
        }
        let same = |text: &str| vec![text.to_owned(); self.events.len()];
        let (mut refused, global_positions): (Vec<i32>, Vec<i64>) = sqlx::query_as(
            "select refused, positions from append_events(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(column(&self.events, |event| event.0))
        .bind(column(&self.events, |event| this_month(event.1)))
        .bind(column(&self.events, |event| event.2))
        .bind(same("reading_session"))
        .bind(same("X"))
        .bind(same("1"))
        .bind(same("{}"))
        .bind(same("{}"))
        .bind(column(&self.claims, |claim| claim.0))
        .bind(column(&self.claims, |claim| claim.1))
        .bind(column(&self.claims, |claim| claim.2.map(this_month)))
        .bind(column(&self.claims, |claim| claim.3.map(this_month)))
        .bind(column(&self.keys, |key| key.0))
        .bind(column(&self.keys, |key| key.1))
        .bind(column(&self.keys, |key| key.2.to_owned()))
        .bind(column(&self.keys, |_| vec![1_u8]))
        .bind(column(&self.keys, |_| "{}".to_owned()))
        .fetch_one(pool)
        .await
        .unwrap();
        refused.sort_unstable();
        refused.dedup();
        (refused, global_positions.len())
    }
}

async fn pool() -> PgPool {
    app::pool(&Stack::shared().await.new_env().await).await
}

#[tokio::test]
async fn duplicate_event_in_a_batch_keeps_the_first_command() {
    let pool = pool().await;
    let batch = Batch::of(&[(0, A, 1), (1, A, 1), (2, B, 1)]);
    assert_eq!(batch.append(&pool).await, (vec![1], 2));
    invariants::sequences_have_no_gaps(&invariants::read_log(&pool).await);
}

#[tokio::test]
async fn event_must_follow_its_predecessor_in_log_or_batch() {
    let pool = pool().await;
    assert_eq!(Batch::of(&[(0, A, 2)]).append(&pool).await, (vec![0], 0));
    let batch = Batch::of(&[(0, A, 1), (0, A, 2), (1, A, 3), (2, B, 1), (3, B, 3)]);
    assert_eq!(batch.append(&pool).await, (vec![3], 4));
    let batch = Batch::of(&[(0, A, 4), (1, A, 6), (2, B, 2), (3, B, 1)]);
    assert_eq!(batch.append(&pool).await, (vec![1, 3], 2));
    invariants::sequences_have_no_gaps(&invariants::read_log(&pool).await);
}

#[tokio::test]
async fn command_after_a_refused_one_is_refused() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    let batch = Batch {
        // The first is refused for its active-session claim, and the others build on it.
        events: vec![(0, A, 1), (1, A, 2), (1, B, 1), (2, B, 2)],
        claims: vec![(0, reader, Some(B), Some(A))],
        keys: vec![(2, reader, "key of the last command")],
    };
    assert_eq!(batch.append(&pool).await, (vec![0, 1, 2], 0));
    let kept: i64 = sqlx::query_scalar("select count(*) from idempotency_keys")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn claim_and_key_are_used_once_per_batch() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    let batch = Batch {
        events: vec![(0, A, 1), (1, B, 1)],
        claims: vec![(0, reader, None, Some(A)), (1, reader, None, Some(B))],
        keys: Vec::new(),
    };
    assert_eq!(batch.append(&pool).await, (vec![1], 1));
    let batch = Batch {
        events: vec![(0, A, 2), (1, B, 1)],
        claims: Vec::new(),
        keys: vec![(0, reader, "same"), (1, reader, "same")],
    };
    assert_eq!(batch.append(&pool).await, (vec![1], 1));
}

#[tokio::test]
async fn command_refused_for_its_key_leaves_the_claim() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    let start = Batch {
        events: vec![(0, A, 1)],
        claims: vec![(0, reader, None, Some(A))],
        keys: vec![(0, reader, "used")],
    };
    assert_eq!(start.append(&pool).await, (vec![], 1));
    let end = Batch {
        events: vec![(0, A, 2)],
        claims: vec![(0, reader, Some(A), None)],
        keys: vec![(0, reader, "used")],
    };
    assert_eq!(end.append(&pool).await, (vec![0], 0));
    let active = eventlog::active_claims::active_session(&pool, reader.into())
        .await
        .unwrap();
    assert_eq!(active.unwrap().to_string(), this_month(A));
}
