//! Costs of queries, measured by Postgres. A query executes one statement,
//! independent of the number of rows, and a page of the history costs the same at
//! any depth.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;
use server::config::Role;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tests::{App, Stack, app};
use uuid::Uuid;

/// The statements of `projections::history`, with their parameter types.
const PAGE: (&str, &str) = (
    "uuid, timestamptz, text, bigint, bigint",
    include_str!("../../projections/src/history/page.sql"),
);
const PAGE_OF_BOOK: (&str, &str) = (
    "uuid, uuid, timestamptz, text, bigint, bigint",
    include_str!("../../projections/src/history/page_of_book.sql"),
);

/// A year of sessions in 12 monthly partitions: one reader with 12,000 sessions of
/// two books, and 500 readers with 96 sessions each.
const FILL: &str = "
    select create_month_partitions('read.history', 9);
    insert into history
    select
        overlay(month_bound(month::date) placing lpad(to_hex(n), 12, '0') from 25),
        case when n < 1000 then md5('avid')::uuid else md5((n % 500)::text)::uuid end,
        md5('book' || n % 2)::uuid, 1, month + n * interval '9 minutes', null, month, 0, 0, 0, 0,
        null, null, null, null, null, null, null, 'UTC'
    from generate_series(
            date_trunc('month', now() at time zone 'UTC') - interval '2 months',
            date_trunc('month', now() at time zone 'UTC') + interval '9 months',
            interval '1 month'
        ) as month,
        generate_series(0, 4999) as n;
    insert into history_totals
    select reader_id, book_id, count(*) from history group by 1, 2;
    analyze history, history_totals";

/// The start of a page: it contains the sessions after this one.
struct Bound {
    started_at: String,
    session_id: String,
}

/// A filled history, and the reader with 12,000 sessions.
struct Filled {
    connection: PgConnection,
    reader: Uuid,
    book: Uuid,
}

impl Filled {
    async fn new() -> Self {
        let env = Stack::shared().await.new_env().await;
        let mut connection = PgConnection::connect(&env.admin_url).await.unwrap();
        connection
            .execute("set search_path = read, public")
            .await
            .unwrap();
        connection.execute(FILL).await.unwrap();
        for (name, (parameters, sql)) in [("page", PAGE), ("page_of_book", PAGE_OF_BOOK)] {
            let prepare = format!("prepare {name} ({parameters}) as {sql}");
            connection.execute(prepare.as_str()).await.unwrap();
        }
        let (reader, book) = sqlx::query_as("select md5('avid')::uuid, md5('book1')::uuid")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        Self {
            connection,
            reader,
            book,
        }
    }

    /// The start of the page that follows the newest `sessions` sessions.
    async fn bound_after(&mut self, sessions: i64, of_book: bool) -> Bound {
        let (started_at, session_id) = sqlx::query_as(
            "select started_at::text, session_id from history
            where reader_id = $1 and (book_id = $2 or not $3)
            order by started_at desc, session_id desc offset $4 limit 1",
        )
        .bind(self.reader)
        .bind(self.book)
        .bind(of_book)
        .bind(sessions - 1)
        .fetch_one(&mut self.connection)
        .await
        .unwrap();
        Bound {
            started_at,
            session_id,
        }
    }

    /// The executed plan of a page with ten sessions.
    async fn explain(&mut self, bound: &Bound, skip: i64, of_book: bool) -> Value {
        let (reader, book) = (self.reader, self.book);
        let (name, filter) = if of_book {
            ("page_of_book", format!("'{reader}', '{book}'"))
        } else {
            ("page", format!("'{reader}'"))
        };
        let Bound {
            started_at,
            session_id,
        } = bound;
        let explain = format!(
            "explain (analyze, buffers, format json)
            execute {name} ({filter}, '{started_at}', '{session_id}', 11, {skip})"
        );
        let plans: Value = sqlx::query_scalar(&explain)
            .persistent(false)
            .fetch_one(&mut self.connection)
            .await
            .unwrap();
        plans[0]["Plan"].clone()
    }

    /// The indexes of the partitions that belong to a partitioned index.
    async fn partition_indexes(&mut self, index: &str) -> BTreeSet<String> {
        sqlx::query_scalar(
            "select relname::text from pg_inherits join pg_class on oid = inhrelid
            where inhparent = $1::regclass",
        )
        .bind(index)
        .fetch_all(&mut self.connection)
        .await
        .unwrap()
        .into_iter()
        .collect()
    }
}

fn newest() -> Bound {
    Bound {
        started_at: "infinity".to_owned(),
        session_id: "g".to_owned(),
    }
}

/// A plan node and all nodes below it.
fn nodes(plan: &Value) -> Vec<&Value> {
    let children = plan["Plans"].as_array().into_iter().flatten();
    std::iter::once(plan)
        .chain(children.flat_map(nodes))
        .collect()
}

/// Buffers of 8 kB that the plan accessed.
fn buffers(plan: &Value) -> i64 {
    let count = |kind: &str| plan[kind].as_i64().unwrap();
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

#[tokio::test]
async fn history_page_costs_the_same_at_any_depth() {
    let mut filled = Filled::new().await;
    for (of_book, index) in [(false, "history_by_reader"), (true, "history_by_book")] {
        let indexes = filled.partition_indexes(index).await;
        assert_eq!(indexes.len(), 12);
        let deep = filled.bound_after(500 * 10, of_book).await;
        // Postgres plans the first executions for their parameters, and may switch to
        // a generic plan later.
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let set = format!("set plan_cache_mode = {mode}");
            filled.connection.execute(set.as_str()).await.unwrap();
            let first = filled.explain(&newest(), 0, of_book).await;
            let cursor = filled.explain(&deep, 0, of_book).await;
            let numbered = filled.explain(&newest(), 50 * 10, of_book).await;
            for plan in [&first, &cursor, &numbered] {
                let mut scanned = BTreeSet::new();
                assert_eq!(plan["Actual Rows"].as_f64(), Some(11.0), "{plan:#}");
                for node in nodes(plan) {
                    let kind = node["Node Type"].as_str().unwrap();
                    let table = node["Relation Name"].as_str();
                    if let Some(month) = table.filter(|table| table.starts_with("history_2")) {
                        scanned.insert(month.to_owned());
                        assert_eq!(kind, "Index Scan", "{mode}: {plan:#}");
                        let used = node["Index Name"].as_str().unwrap();
                        assert!(indexes.contains(used), "{mode}: {used} in {plan:#}");
                    }
                    let is_expensive = kind.contains("Sort") || kind.contains("Seq Scan");
                    assert!(!is_expensive, "{mode}: {kind} in {plan:#}");
                }
                assert_eq!(scanned.len(), indexes.len(), "{mode}: {plan:#}");
            }
            let (first, cursor) = (buffers(&first), buffers(&cursor));
            assert!(
                cursor <= 2 * first,
                "{mode}: page 1 accesses {first} buffers, page 501 accesses {cursor}"
            );
        }
    }
}

/// The statements of `projections::daily_stats` that read `session_days`, with their
/// parameter types.
const STATISTICS: [(&str, &str, &str); 3] = [
    (
        "days",
        "uuid, date",
        include_str!("../../projections/src/daily_stats/days.sql"),
    ),
    (
        "reader_rows",
        "uuid, date",
        include_str!("../../projections/src/daily_stats/reader_rows.sql"),
    ),
    (
        "stored",
        "text[], uuid[], date[], text[]",
        include_str!("../../projections/src/daily_stats/stored.sql"),
    ),
];

/// 500 readers with two sessions on each of 100 days.
const FILL_STATISTICS: &str = "
    insert into session_days
    select format('%s-%s-%s', reader, n, session), date '2026-01-01' + n,
        md5(reader::text)::uuid, 'UTC',
        tstzmultirange(tstzrange(at, at + interval '9 minutes')), at, 0, null, null, null, 0, 0,
        false, false
    from generate_series(1, 500) as reader, generate_series(0, 99) as n,
        generate_series(1, 2) as session,
        lateral (select timestamptz '2026-01-01Z' + n * interval '1 day') as times (at);
    analyze session_days";

#[tokio::test]
async fn statistics_read_the_rows_of_their_readers_only() {
    let env = Stack::shared().await.new_env().await;
    let mut connection = PgConnection::connect(&env.admin_url).await.unwrap();
    for statement in ["set search_path = read, public", FILL_STATISTICS] {
        connection.execute(statement).await.unwrap();
    }
    for (name, parameters, sql) in STATISTICS {
        let prepare = format!("prepare {name} ({parameters}) as {sql}");
        connection.execute(prepare.as_str()).await.unwrap();
    }
    let reader = "md5('7')::uuid";
    let sessions = "array['7-99-1', '7-99-2']";
    // The name, the arguments and the number of returned rows.
    let calls = [
        ("days", format!("{reader}, '2026-04-01'"), 10.0),
        ("days", format!("{reader}, '1970-01-01'"), 100.0),
        ("reader_rows", format!("{reader}, '2026-04-01'"), 20.0),
        (
            "stored",
            format!("{sessions}, array[{reader}], array[date '2026-04-10'], '{{}}'"),
            2.0,
        ),
        (
            "stored",
            format!("array['7-98-1'], array[{reader}], array[date '2026-04-10'], array['7-97-2']"),
            5.0,
        ),
    ];
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let set = format!("set plan_cache_mode = {mode}");
        connection.execute(set.as_str()).await.unwrap();
        for (name, arguments, rows) in &calls {
            // The parameters of the pool of projections.
            let enable = if *name == "stored" { "off" } else { "on" };
            let set = format!("set enable_seqscan = {enable}");
            connection.execute(set.as_str()).await.unwrap();
            let explain =
                format!("explain (analyze, buffers, format json) execute {name} ({arguments})");
            let plans: Value = sqlx::query_scalar(&explain)
                .persistent(false)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            let plan = &plans[0]["Plan"];
            assert_eq!(plan["Actual Rows"].as_f64(), Some(*rows), "{plan:#}");
            for node in nodes(plan) {
                let kind = node["Node Type"].as_str().unwrap();
                assert!(!kind.contains("Seq Scan"), "{mode}: {kind} in {plan:#}");
            }
            // The table has more than 2,000 pages.
            let buffers = buffers(plan);
            assert!(buffers < 400, "{mode}: {name} accesses {buffers} buffers");
        }
    }
}

/// The number of statements that the API's pool has executed, from the Postgres log.
/// The database must log all statements.
async fn statements(pool: &PgPool, stack: &Stack) -> usize {
    let api: Vec<i32> = sqlx::query_scalar(
        "select pid from pg_stat_activity
        where datname = current_database() and application_name = 'reading-sessions-api'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let log = stack
        .servers
        .lock()
        .await
        .postgres
        .dir()
        .unwrap()
        .join("log");
    let log = std::fs::read(log).unwrap();
    let log = String::from_utf8_lossy(&log);
    let is_from_api = |line: &&str| {
        let is_from = |pid: &i32| line.contains(&format!("[{pid}] LOG:  execute"));
        api.iter().any(is_from)
    };
    log.lines().filter(is_from_api).count()
}

/// Writes sessions on `count` consecutive days into the read tables, as the
/// projections would.
async fn write_sessions(pool: &PgPool, reader: Uuid, book: Uuid, count: i32) {
    for sql in [
        "insert into history
        select
            overlay(month_bound(date_trunc('month', now() at time zone 'UTC')::date)
                placing lpad(to_hex(n), 12, '0') from 25),
            $1, $2, 1, now() - n * interval '1 day', null, now(), 0, 0, 0, 0,
            null, null, null, null, null, null, null, 'UTC'
        from generate_series(1, $3) as n on conflict do nothing",
        "insert into history_totals values ($1, $2, $3)
        on conflict (reader_id, book_id) do update set sessions = $3",
        "insert into session_days
        select format('%s-%s', $2, n), current_date - n, $1, 'UTC',
            tstzmultirange(tstzrange(noon, noon + interval '1 minute')), noon, 0, null, null, null,
            0, 0, false, false
        from generate_series(1, $3) as n,
            lateral (select (current_date - n) + timetz '12:00Z') as at (noon)
        on conflict do nothing",
    ] {
        let insert = sqlx::query(sql).bind(reader).bind(book).bind(count);
        insert.execute(pool).await.unwrap();
    }
}

#[tokio::test]
async fn query_executes_one_statement_for_any_row_count() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let (_, database) = env.database_url.rsplit_once('/').unwrap();
    let log_all = format!("alter database {database} set log_statement = 'all'");
    let pool = app::pool(&env).await;
    pool.execute(log_all.as_str()).await.unwrap();
    // Without projections, only the queries execute statements.
    let settings = app::settings(&env, &[Role::Api]);
    let app = App::run(stack.clone(), env, &settings).await;
    let reader = app.reader();
    let book = Uuid::new_v4();

    for count in [0, 1, 100] {
        write_sessions(&pool, reader.id, book, count).await;
        for path in [
            "/history?page_size=100".to_owned(),
            format!("/history?page_size=100&book_id={book}"),
            "/history?page=2&page_size=100".to_owned(),
            "/stats/daily?days=366".to_owned(),
            "/stats/weekly".to_owned(),
            "/stats/streak".to_owned(),
            "/stats/patterns?days=366".to_owned(),
        ] {
            let before = statements(&pool, &stack).await;
            let found = reader.call(Method::GET, &path, None).await.ok();
            let made = statements(&pool, &stack).await - before;
            assert_eq!(made, 1, "{path} with {count} sessions");
            if path.starts_with("/history") {
                assert_eq!(found["total"], count, "{path}");
                let shown = if path.contains("page=2") { 0 } else { count };
                let sessions = found["sessions"].as_array().unwrap();
                assert_eq!(sessions.len(), usize::try_from(shown).unwrap(), "{path}");
            }
        }
    }
}
