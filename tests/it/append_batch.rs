//! `append_events` decides a batch command by command, in order. A conflicting
//! command is refused as a whole, the other commands are written, and no command
//! is tried twice.

use std::sync::OnceLock;

use domain::Timestamp;
use sqlx::PgPool;
use tests::{Stack, app, invariants};
use uuid::Uuid;

/// The commands of a batch, as arguments of `append_events`.
#[derive(Default)]
struct Batch {
    events: Vec<(i32, &'static str, i64)>,
    claims: Vec<(i32, Uuid, Option<&'static str>, Option<&'static str>)>,
    /// Expected and next newest observation of each claim, in hours; none if empty.
    newest: Vec<(Option<i64>, Option<i64>)>,
    seen: Vec<(i32, &'static str, i64)>,
    keys: Vec<(i32, Uuid, &'static str)>,
}

fn hour(hour: i64) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + hour * 3_600, 0).unwrap()
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
        let mut newest = self.newest.clone();
        newest.resize(self.claims.len(), (None, None));
        let same = |text: &str| vec![text.to_owned(); self.events.len()];
        let (mut refused, global_positions): (Vec<i32>, Vec<i64>) = sqlx::query_as(
            "select refused, positions from append_events(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22)",
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
        .bind(column(&newest, |newest| newest.0.map(hour)))
        .bind(column(&newest, |newest| newest.1.map(hour)))
        .bind(column(&self.seen, |seen| seen.0))
        .bind(column(&self.seen, |seen| this_month(seen.1)))
        .bind(column(&self.seen, |seen| seen.2))
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
        ..Batch::default()
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
        ..Batch::default()
    };
    assert_eq!(batch.append(&pool).await, (vec![1], 1));
    let batch = Batch {
        events: vec![(0, A, 2), (1, B, 1)],
        keys: vec![(0, reader, "same"), (1, reader, "same")],
        ..Batch::default()
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
        ..Batch::default()
    };
    assert_eq!(start.append(&pool).await, (vec![], 1));
    let end = Batch {
        events: vec![(0, A, 2)],
        claims: vec![(0, reader, Some(A), None)],
        keys: vec![(0, reader, "used")],
        ..Batch::default()
    };
    assert_eq!(end.append(&pool).await, (vec![0], 0));
    assert_eq!(activity(&pool, reader).await, (Some(this_month(A)), None));
}

/// The reader's active session, and the newest observation outside it.
async fn activity(pool: &PgPool, reader: Uuid) -> (Option<String>, Option<Timestamp>) {
    let activity = eventlog::active_claims::reader_activity(pool, reader.into())
        .await
        .unwrap();
    (activity.active.map(|id| id.to_string()), activity.newest)
}

/// A command that changes a claim and the newest observation, and nothing else.
fn claim(
    reader: Uuid,
    [expected, next]: [Option<&'static str>; 2],
    newest: (Option<i64>, Option<i64>),
) -> Batch {
    Batch {
        claims: vec![(0, reader, expected, next)],
        newest: vec![newest],
        ..Batch::default()
    }
}

#[tokio::test]
async fn without_an_active_session_the_newest_observation_must_be_the_expected_one() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    for (expected, next, newest, refused) in [
        (None, None, (Some(1), Some(9)), true),
        (None, Some(A), (Some(1), Some(9)), true),
        (None, Some(A), (None, None), false),
        (Some(A), None, (Some(1), Some(2)), false),
        (None, Some(A), (None, Some(9)), true),
        (None, Some(A), (Some(1), Some(9)), true),
        (None, None, (None, Some(9)), true),
        (None, None, (Some(2), Some(3)), false),
        (None, Some(A), (Some(3), None), false),
        (Some(A), Some(A), (None, Some(4)), false),
        (Some(A), Some(B), (None, None), false),
        (Some(A), None, (Some(4), Some(9)), true),
    ] {
        let before = activity(&pool, reader).await;
        let (actual, _) = claim(reader, [expected, next], newest).append(&pool).await;
        assert_eq!(
            !actual.is_empty(),
            refused,
            "{expected:?} {next:?} {newest:?}"
        );
        if refused {
            assert_eq!(activity(&pool, reader).await, before);
        }
    }
    let active = (Some(this_month(B)), Some(hour(4)));
    assert_eq!(activity(&pool, reader).await, active);
}

#[tokio::test]
async fn newest_observation_never_becomes_older() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    for (expected, next, after) in [
        (None, 5, 5),
        (Some(5), 3, 5),
        (Some(5), 5, 5),
        (Some(5), 6, 6),
    ] {
        let batch = claim(reader, [None, None], (expected, Some(next)));
        assert_eq!(batch.append(&pool).await, (vec![], 0));
        assert_eq!(activity(&pool, reader).await, (None, Some(hour(after))));
    }
}

#[tokio::test]
async fn unchanged_claim_is_checked_and_not_written() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    let unchanged = [Some(A), Some(A)];
    let batch = claim(reader, unchanged, (None, None));
    assert_eq!(batch.append(&pool).await, (vec![0], 0));
    assert_eq!(activity(&pool, reader).await, (None, None));
    let batch = claim(reader, [None, Some(A)], (None, None));
    assert_eq!(batch.append(&pool).await, (vec![], 0));
    let row_version = async || -> String {
        sqlx::query_scalar("select xmin::text || ctid::text || xmax::text from claims")
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    let before = row_version().await;
    let batch = claim(reader, unchanged, (None, Some(1)));
    assert_eq!(batch.append(&pool).await, (vec![], 0));
    assert_eq!(row_version().await, before);
    let active = (Some(this_month(A)), Some(hour(1)));
    assert_eq!(activity(&pool, reader).await, active);
    let batch = claim(reader, [Some(B), Some(B)], (Some(1), Some(2)));
    assert_eq!(batch.append(&pool).await, (vec![0], 0));
    assert_eq!(activity(&pool, reader).await, active);
}

#[tokio::test]
async fn command_that_has_seen_an_earlier_state_is_refused() {
    let pool = pool().await;
    let reader = Uuid::new_v4();
    let seen = |seen: &[(i32, &'static str, i64)]| Batch {
        seen: seen.to_vec(),
        keys: vec![(0, reader, "a"), (1, reader, "b"), (2, reader, "c")],
        ..Batch::default()
    };
    // A session that does not exist has no state.
    let batch = seen(&[(0, A, 0), (1, A, 1), (2, B, 0)]);
    assert_eq!(batch.append(&pool).await, (vec![0, 1, 2], 0));
    let batch = Batch::of(&[(0, A, 1), (0, A, 2), (0, B, 1)]);
    assert_eq!(batch.append(&pool).await, (vec![], 3));
    // Command 0 changes B after command 1 has seen it, and before command 2.
    let batch = Batch {
        events: vec![(0, A, 3), (1, B, 2)],
        ..seen(&[(0, B, 1), (1, A, 2), (2, B, 1), (2, A, 2)])
    };
    assert_eq!(batch.append(&pool).await, (vec![1, 2], 1));
    let batch = seen(&[(1, A, 3), (1, B, 1), (2, A, 2)]);
    let batch = Batch {
        keys: vec![(1, reader, "b"), (2, reader, "c")],
        ..batch
    };
    assert_eq!(batch.append(&pool).await, (vec![2], 0));
    let keys: Vec<String> = sqlx::query_scalar("select key from idempotency_keys order by key")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(keys, ["a", "b"]);
}
