//! Each user of `deploy/redis.sh` has the permissions that its role needs, and no
//! more. The tests run a server with this script.

use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, ServerErrorKind, Value};
use reqwest::Method;
use server::config::{AuthArgs, Role};
use tests::app::SETTLE;
use tests::process::command;
use tests::production_redis::{ProductionRedis, TESTER, USERS, password};
use tests::{App, Stack, app, invariants, until};
use uuid::Uuid;

/// The roles as compose.yaml runs them: each process with its own user, the relay
/// without Redis, and tokens only at the API.
struct Roles {
    api: App,
    others: [App; 3],
}

impl Roles {
    async fn start(stack: &Arc<Stack>, redis: &ProductionRedis) -> Self {
        let env = stack.new_env().await;
        let role = async |name: &str, role: Role| {
            let env = redis.env_for(&env, name);
            let mut settings = app::settings(&env, &[role]);
            match role {
                Role::Api => settings.rate_limit.window = Duration::from_hours(1),
                Role::Relay => settings.redis.redis_url = None,
                Role::Projections | Role::Jobs => {}
            }
            if role != Role::Api {
                settings.auth = AuthArgs::default();
            }
            App::run(Arc::clone(stack), env, &settings).await
        };
        Self {
            others: [
                role("relay", Role::Relay).await,
                role("projections", Role::Projections).await,
                role("jobs", Role::Jobs).await,
            ],
            api: role("api", Role::Api).await,
        }
    }

    async fn stop(self) {
        self.api.stop().await;
        for app in self.others {
            app.stop().await;
        }
    }
}

/// The exit code and the output of an operator's command.
async fn operate(app: &App, redis: &ProductionRedis, arguments: &[&str]) -> (i32, String) {
    let env = redis.env_for(&app.env, "operator");
    let output = command(&env).args(arguments).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().expect("an exit"), text)
}

#[tokio::test]
async fn each_role_works_with_its_own_redis_user() {
    let stack = Stack::shared().await;
    let redis = ProductionRedis::start(&stack).await;
    let roles = Roles::start(&stack, &redis).await;
    let api = &roles.api;
    api.warmed_up().await;

    // The API counts requests, and reads and fills entries.
    let (reader, other) = (api.reader(), api.reader());
    let session = tests::reader::id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 12.5).await.ok();
    let _ = other.start(Uuid::new_v4()).await.ok();
    app::settled(&api.pool, &api.env).await;
    let key = format!("reading_session:active:{}", other.id);
    let _ = redis.run_unrestricted(&format!("DEL {key}")).await;
    let _ = other.call(Method::GET, "/active", None).await.ok();
    until("the API fills the miss", SETTLE, async || {
        redis.run_unrestricted(&format!("EXISTS {key}")).await == Value::Int(1)
    })
    .await;
    let counted = redis.run_unrestricted("KEYS rate_limit:*").await;
    assert!(
        matches!(&counted, Value::Array(keys) if keys.len() >= 2),
        "{counted:?}"
    );

    // The projections initialise an emptied cache, and the jobs fill it.
    let _ = redis.run_unrestricted("FLUSHALL").await;
    until("the jobs fill the cache", 2 * SETTLE, async || {
        redis.run_unrestricted(&format!("EXISTS {key}")).await == Value::Int(1)
    })
    .await;

    // An admin call runs in the API's process.
    let operator = api.operator();
    for path in ["/projections/active_sessions/replay", "/cache/warmup"] {
        let accepted = operator.call(Method::POST, path, None).await;
        assert_eq!(accepted.status, 202, "{path}");
    }
    api.warmed_up().await;

    // Operators check, rebuild and erase.
    for arguments in [
        &["verify"][..],
        &["replay", "active_sessions"],
        &["warm-up"],
        &["reader", "erase", &other.id.to_string(), "--yes"],
    ] {
        let (code, text) = operate(api, &redis, arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {text}");
    }
    let (_, findings) = operate(api, &redis, &["doctor"]).await;
    assert!(findings.contains("Redis memory"), "{findings}");

    app::settled(&api.pool, &api.env).await;
    invariants::check_env(&api.pool, &redis.env_for(&api.env, TESTER)).await;
    assert_eq!(redis.refusals().await, Vec::<String>::new());
    roles.stop().await;
}

/// Commands that no user may run.
const FORBIDDEN: [&str; 17] = [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "ACL LIST",
    "ACL SETUSER api on nopass ~* +@all",
    "CLIENT LIST",
    "MONITOR",
    "SAVE",
    "SHUTDOWN NOSAVE",
    "REPLICAOF elsewhere 6379",
    "SCRIPT FLUSH",
    "SUBSCRIBE any",
    "SELECT 1",
    "HSET reading_session:projection checkpoint 1",
    "GET elsewhere",
];

/// Commands that only the listed users may run.
const RESTRICTED: [(&str, &[&str]); 8] = [
    ("GET rate_limit:auth:ip:192.0.2.1", &["api", "jobs"]),
    ("SET rate_limit:auth:ip:192.0.2.1 0", &["api", "jobs"]),
    ("DEL rate_limit:auth:ip:192.0.2.1", &[]),
    ("DEL reading_session:projection", &[]),
    ("INFO", &["operator", "monitor"]),
    ("SLOWLOG GET 1", &[]),
    ("SLOWLOG LEN", &["monitor"]),
    (
        "GET reading_session:projection",
        &["api", "projections", "jobs", "operator"],
    ),
];

#[tokio::test]
async fn each_user_is_denied_the_commands_and_keys_of_others() {
    let stack = Stack::shared().await;
    let redis = ProductionRedis::start(&stack).await;
    // A script has only the permissions of its caller.
    let script = redis::Script::new("return redis.call('FLUSHALL')");
    for (user, _) in USERS {
        let others = RESTRICTED
            .iter()
            .filter(|(_, users)| !users.contains(&user));
        for command in FORBIDDEN.iter().chain(others.map(|(command, _)| command)) {
            let error = redis.run(user, command).await.unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Server(ServerErrorKind::NoPerm),
                "{user}: {command}: {error}"
            );
        }
        for (command, _) in RESTRICTED.iter().filter(|(_, users)| users.contains(&user)) {
            redis.run(user, command).await.unwrap();
        }
        let mut connection = redis.connect(&redis.url(user)).await.unwrap();
        let error: redis::RedisResult<Value> = script.invoke_async(&mut connection).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("no permissions to run"), "{user}: {error}");
    }
}

#[tokio::test]
async fn client_without_a_user_or_with_a_wrong_password_is_rejected() {
    let stack = Stack::shared().await;
    let redis = ProductionRedis::start(&stack).await;
    for url in [
        redis.url_with("api", &password("operator")),
        redis.url_with("unknown", &password("api")),
        redis.url_with("default", &password("api")),
        redis.url_with("", &password("api")),
    ] {
        assert!(redis.connect(&url).await.is_err(), "{url}");
    }
    let mut anonymous = redis.connect(&redis.anonymous_url()).await.unwrap();
    let refused: redis::RedisResult<Value> = redis::cmd("PING").query_async(&mut anonymous).await;
    assert_eq!(refused.unwrap_err().code(), Some("NOAUTH"));
}
