//! Databases that an earlier release has migrated, and roles that may not create roles.

use std::path::Path;

use eventlog::migrations;

use super::*;

/// The newest migration of the release without roles.
const LAST_WITHOUT_ROLES: i64 = 11;

/// A role that owns an empty database, and a pool of it.
async fn owner(stack: &Stack, attributes: &str) -> (TestEnv, String) {
    let env = stack.new_empty_env().await;
    let (_, database) = env.admin_url.rsplit_once('/').unwrap();
    let name = format!("owner_of_{database}");
    let admin = PgPool::connect(&env.admin_url).await.unwrap();
    let create = format!(
        "create role {name} login password 'secret' {attributes}; alter database {database} owner to {name}"
    );
    admin.execute(create.as_str()).await.unwrap();
    let (_, address) = env.admin_url.split_once('@').unwrap();
    let url = format!("postgres://{name}:secret@{address}");
    (env, url)
}

async fn pool(url: &str) -> PgPool {
    PgPool::connect(url).await.unwrap()
}

#[tokio::test]
async fn database_of_the_release_without_roles_is_upgraded() {
    let stack = Stack::shared().await;
    let (env, url) = owner(&stack, "").await;
    let mut earlier =
        sqlx::migrate::Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations"))
            .await
            .unwrap();
    let kept = earlier
        .iter()
        .filter(|migration| migration.version <= LAST_WITHOUT_ROLES)
        .cloned()
        .collect();
    earlier.migrations = kept;
    let former = pool(&url).await;
    earlier.run(&former).await.unwrap();

    let admin = pool(&env.admin_url).await;
    let migrated = migrations::migrate(&admin).await.unwrap();
    assert_eq!(migrated, migrations::RoleSeparation::Separate);
    let owner: String =
        sqlx::query_scalar("select relowner::regrole::text from pg_class where relname = 'events'")
            .fetch_one(&admin)
            .await
            .unwrap();
    assert_eq!(owner, "reading_owner");

    // A process of the earlier release continues with the former owner.
    for statement in [
        "select count(*) from append_events('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
            '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        "insert into claims select * from claims",
        "update projections set paused = false",
        "select create_shadow('replay_history', '{history,checkpoints,dead_letters}');
        insert into replay_history.history select * from read.history;
        drop schema replay_history cascade",
        "select create_month_partitions('read.history', 3)",
    ] {
        assert_eq!(refusal(&former, statement).await, None, "{statement}");
    }

    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(Arc::clone(&stack), env, &settings).await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    invariants::check(&app).await;
}

#[tokio::test]
async fn role_of_the_service_may_not_migrate_and_is_told_which_role_may() {
    let env = Stack::shared().await.new_env().await;
    let output = command(&env).arg("migrate").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("role reading_service may not change the schema"),
        "{error}"
    );
}

#[tokio::test]
async fn role_that_may_create_roles_need_not_be_a_superuser() {
    // Another set of servers: the roles of the shared one exist already.
    let servers = dev_servers::Servers::start(dev_servers::Options {
        data: dev_servers::scratch_data_dir().unwrap(),
        fsync: false,
        offline: false,
        postgres: None,
        nats: Some(String::new()),
        redis: Some(String::new()),
    })
    .await
    .unwrap();
    let admin = pool(servers.database_url()).await;
    admin
        .execute("create role creator login createrole password 'secret'")
        .await
        .unwrap();
    admin
        .execute("create database created owner creator")
        .await
        .unwrap();
    let url = servers.database_url_as("creator", "secret").unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let creator = pool(&format!("{server}/created")).await;
    for _ in 0..2 {
        let migrated = migrations::migrate(&creator).await.unwrap();
        assert_eq!(migrated, migrations::RoleSeparation::Separate);
    }
    eventlog::roles::set_password(&creator, DatabaseRole::Service, "secret")
        .await
        .unwrap();
    refusals::the_owner_owns_everything(&creator).await;
    let url = servers
        .database_url_as("reading_service", "secret")
        .unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let service = pool(&format!("{server}/created")).await;
    assert_eq!(refusal(&service, "select from events").await, None);
    assert!(refusal(&service, "delete from events").await.is_some());
}

#[tokio::test]
async fn role_that_may_not_create_roles_migrates_and_is_warned() {
    let stack = Stack::shared().await;
    let (env, url) = owner(&stack, "").await;
    let env = TestEnv {
        database_url: url,
        ..env
    };
    let log = succeeds(command(&env), &["migrate"]).await;
    assert!(
        log.contains("creating the roles of Postgres failed"),
        "{log}"
    );
    let settings = app::settings(&env, &Role::ALL);
    let app = App::run(Arc::clone(&stack), env, &settings).await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let doctor = command(&app.env).arg("doctor").output().await.unwrap();
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(text.contains("owns the log"), "{text}");
    // Other logins of the server get no rights of the owner.
    refusals::only_named_roles_run_functions_of_the_owner(&app.pool).await;

    // A later run with more rights separates the roles.
    let admin = pool(&app.env.admin_url).await;
    let migrated = migrations::migrate(&admin).await.unwrap();
    assert_eq!(migrated, migrations::RoleSeparation::Separate);
    refusals::the_owner_owns_everything(&admin).await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
}
