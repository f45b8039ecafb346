//! What the roles may not do.

use super::*;

/// Statements of an attacker with any role of the service, against the log, the schema
/// and the server.
const FORBIDDEN: [&str; 28] = [
    "insert into events select * from events",
    "update events set payload = '{}'",
    "delete from events",
    "truncate events",
    "do $$ begin execute format('delete from %s', (select max(inhrelid)::regclass from pg_inherits
        where inhparent = 'events'::regclass)); end $$",
    "alter table events disable trigger all",
    "alter table events detach partition events_2026_01",
    "drop trigger events_no_change on events",
    "create trigger mine before insert on events
        for each row execute function suppress_redundant_updates_trigger()",
    "create rule mine as on insert to events do instead nothing",
    "drop table events cascade",
    "set session_replication_role = replica",
    "set role reading_owner",
    "alter role current_user superuser",
    "create role mine",
    "create schema mine",
    "create table public.mine (n int)",
    "create or replace function month_bound(month date) returns text language sql as 'select $$x$$'",
    "alter function month_bound(date) owner to current_user",
    "select setval('events_global_position', 1)",
    "insert into claims select * from claims",
    "delete from erasures",
    "insert into audit (actor, origin, action) values ('anna', 'http', 'pause')",
    "update audit set actor = 'anna'",
    "delete from audit",
    "truncate audit",
    "select append_tombstones('{}', '', '', '{}')",
    "copy (select 1) to program 'true'",
];

#[tokio::test]
async fn no_role_can_change_the_log_or_the_schema() {
    let env = Stack::shared().await.new_env().await;
    for role in DatabaseRole::ALL {
        let pool = pool_of(&env, role).await;
        for statement in FORBIDDEN {
            assert_eq!(
                refusal(&pool, statement).await,
                Some(SqlState::NotPermitted),
                "{}: {statement}",
                role.name()
            );
        }
    }
}

#[tokio::test]
async fn no_role_can_do_the_work_of_another() {
    let env = Stack::shared().await.new_env().await;
    let append =
        "select count(*) from append_events('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
        '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')";
    let erase = "select erase_reader_part('00000000-0000-0000-0000-000000000000', '', 1, now(), '',
        '', '{}')";
    let overwrite = "select overwrite_events('00000000-0000-0000-0000-000000000000', 1)";
    let write = "delete from read.history";
    let pause = "update projections set paused = true";
    let shadow = "select create_shadow('replay_history', '{history}', null)";
    let retain = "update retention set history_from = ''";
    let partitions = "select create_month_partitions('events', 3)";
    let month = "select drop_history_month('history_2026_01')";
    let record = "select audit_end(audit_begin('a', 'cli', 'b', null, '{}'), 'failed', 'c', '{}')";
    let audit = "select * from audit";
    let (api, relay, projections, operator) = (
        DatabaseRole::Api,
        DatabaseRole::Relay,
        DatabaseRole::Projections,
        DatabaseRole::Operator,
    );
    for (role, statements) in [
        (
            api,
            &[
                overwrite, write, pause, shadow, retain, partitions, month, audit,
            ][..],
        ),
        (
            relay,
            &[
                append,
                erase,
                overwrite,
                write,
                pause,
                shadow,
                retain,
                partitions,
                month,
                record,
                audit,
                "select * from claims",
                "select * from read.history",
                "select * from idempotency_keys",
            ],
        ),
        (
            projections,
            &[
                append, erase, overwrite, shadow, retain, partitions, month, audit,
            ],
        ),
        (operator, &[append, retain, partitions, month]),
    ] {
        let pool = pool_of(&env, role).await;
        for statement in statements {
            assert_eq!(
                refusal(&pool, statement).await,
                Some(SqlState::NotPermitted),
                "{}: {statement}",
                role.name()
            );
        }
    }
    // Another role may, so the statements are correct.
    let jobs = pool_of(&env, DatabaseRole::Service).await;
    for statement in [
        append, erase, overwrite, write, pause, shadow, retain, partitions, record, audit,
    ] {
        assert_eq!(refusal(&jobs, statement).await, None, "{statement}");
    }
}

#[tokio::test]
async fn functions_that_drop_tables_refuse_other_schemas() {
    let env = Stack::shared().await.new_env().await;
    let pool = pool_of(&env, DatabaseRole::Service).await;
    for statement in [
        "select drop_shadow('public')",
        "select drop_shadow('read')",
        "select drop_shadow('replay_history cascade; drop table events; --')",
        "select create_shadow('read', '{history}', null)",
        "select create_shadow('mine', '{history}')",
        "select swap_shadow('public', 'retired_history', '{history}')",
        "select swap_shadow('replay_history', 'mine', '{history}')",
        "select analyze_shadow('public', '{events}')",
        "select drop_retired('read', 'history')",
        "select drop_history_month('checkpoints')",
        "create temp table mine (k text) partition by range (k);
        select create_month_partitions('pg_temp.mine', 0)",
        "select drop_history_month('history_2026_01; drop table events')",
    ] {
        assert_eq!(
            refusal(&pool, statement).await,
            Some(SqlState::NotPermitted),
            "{statement}"
        );
    }
}

/// A function that runs with the rights of the owner would otherwise use a temporary table
/// of its caller in the place of the one that it names.
#[tokio::test]
async fn functions_with_the_rights_of_the_owner_have_a_fixed_search_path() {
    let env = Stack::shared().await.new_env().await;
    let pool = app::pool(&env).await;
    only_named_roles_run_functions_of_the_owner(&pool).await;
    the_owner_owns_everything(&pool).await;
}

pub(super) async fn the_owner_owns_everything(pool: &PgPool) {
    let others: Vec<String> = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_class as c
        where relkind in ('r', 'p', 'S')
            and relnamespace in ('public'::regnamespace, 'read'::regnamespace)
            and relowner <> 'reading_owner'::regrole
        union all
        select p.oid::regprocedure::text from pg_proc as p
        where pronamespace = 'public'::regnamespace and proowner <> 'reading_owner'::regrole",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(others, Vec::<String>::new());
}

/// Checks each function that runs with the rights of its owner.
pub(super) async fn only_named_roles_run_functions_of_the_owner(pool: &PgPool) {
    let functions: Vec<(String, bool, bool)> = sqlx::query_as(
        "select p.oid::regprocedure::text,
            coalesce(array_to_string(proconfig, ' '), '') ~ 'search_path=\\w+, pg_temp',
            has_function_privilege('public', p.oid, 'execute')
        from pg_proc as p
        where pronamespace = 'public'::regnamespace and prosecdef",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(functions.len() > 10, "{functions:?}");
    for (name, has_fixed_path, is_public) in functions {
        assert!(has_fixed_path, "{name}");
        assert!(!is_public, "{name}");
    }
}

#[tokio::test]
async fn migrate_removes_rights_that_were_granted_by_hand() {
    let env = Stack::shared().await.new_env().await;
    let pool = PgPool::connect(&env.admin_url).await.unwrap();
    pool.execute("grant update on events to reading_api; grant select on claims to public")
        .await
        .unwrap();
    let api = pool_of(&env, DatabaseRole::Api).await;
    let relay = pool_of(&env, DatabaseRole::Relay).await;
    assert_eq!(refusal(&relay, "select * from claims").await, None);
    eventlog::migrations::migrate(&pool).await.unwrap();
    for (role, statement) in [
        (&api, "update events set payload = '{}'"),
        (&relay, "select * from claims"),
    ] {
        assert_eq!(
            refusal(role, statement).await,
            Some(SqlState::NotPermitted),
            "{statement}"
        );
    }
}
