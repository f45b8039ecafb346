//! Who may call: every kind of key, every way to pretend, and issuers that
//! change their keys, are away, or answer nonsense.

use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use services::api::auth::{Keys, Refusal};
use services::config::{AuthArgs, Secret};
use tests::issuer::{Issuer, SigningKey, hs256, message, set_of};
use tests::process::{command, executable};
use tests::reader::id;
use tests::{Answer, App, Reader, Stack};
use uuid::Uuid;

/// How long anything of an issuer may take to be noticed.
const NOTICED: Duration = Duration::from_secs(20);

fn now() -> i64 {
    services::clock::now().timestamp()
}

/// What a good token says.
fn claims() -> Value {
    json!({ "sub": Uuid::new_v4(), "exp": now() + 600, "type": "access" })
}

/// Good claims with some members changed; those that are null go away.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn by_url(issuer: &Issuer) -> AuthArgs {
    AuthArgs {
        jwks_url: Some(Secret::from(issuer.url.clone())),
        ..AuthArgs::default()
    }
}

/// Keys from a file that holds these.
fn by_file(keys: &[&SigningKey]) -> (AuthArgs, std::path::PathBuf) {
    let file = std::env::temp_dir().join(format!("jwks-{}.json", Uuid::new_v4()));
    std::fs::write(&file, set_of(keys).to_string()).unwrap();
    let args = AuthArgs {
        jwks_file: Some(file.clone()),
        ..AuthArgs::default()
    };
    (args, file)
}

async fn refused(keys: &Keys, token: &str) -> bool {
    keys.verify(token).await == Err(Refusal::Invalid)
}

/// The answer to a query with any header.
async fn call(app: &App, authorization: HeaderValue) -> (StatusCode, Value) {
    let response = app
        .client
        .get(format!("{}/active", app.url))
        .header("authorization", authorization)
        .send()
        .await
        .unwrap();
    let status = response.status();
    if status == 401 {
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn each_kind_of_key_opens_the_door() {
    let keys = [
        SigningKey::rsa("one"),
        SigningKey::ec("two"),
        SigningKey::ed("three"),
    ];
    let issuer = Issuer::start(&keys.each_ref()).await;
    let app = App::trusting(by_url(&issuer)).await;
    for key in &keys {
        let user = Uuid::new_v4();
        let token = key.token(&claims_with(&json!({ "sub": user })));
        let reader = app.reader_with_token(user, token);
        let session = reader.start(Uuid::new_v4()).await.ok();
        assert_eq!(session["user_id"], json!(user), "{}", key.algorithm());
        // The second time it is known.
        assert_eq!(reader.session(id(&session)).await.ok()["id"], session["id"]);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_no_token_chooses_its_algorithm() {
    let (rsa, ec, ed) = (
        SigningKey::rsa("rsa"),
        SigningKey::ec("ec"),
        SigningKey::ed("ed"),
    );
    let stranger = SigningKey::rsa("rsa");
    let (args, _file) = by_file(&[&rsa, &ec, &ed]);
    let keys = Keys::new(&args).unwrap();
    let claims = claims();
    assert!(keys.verify(&rsa.token(&claims)).await.is_ok());

    let mut bad = Vec::new();
    for key in [&rsa, &ec, &ed] {
        let header = json!({ "alg": "HS256", "typ": "JWT", "kid": key.kid });
        for secret in [
            key.public_pem().into_bytes(),
            key.public_pem().trim().as_bytes().to_vec(),
            key.public_der(),
            key.jwk().to_string().into_bytes(),
            Vec::new(),
        ] {
            bad.push(hs256(&header, &claims, &secret));
        }
        for none in ["none", "None", "NONE", "nOnE", ""] {
            let header = json!({ "alg": none, "kid": key.kid });
            bad.push(format!("{}.", message(&header, &claims)));
            bad.push(key.token_with(&header, &claims));
        }
        // A good signature under another key's name, algorithm, or both.
        for other in [&rsa, &ec, &ed] {
            if other.kid != key.kid {
                bad.push(key.token_with(
                    &json!({ "alg": key.algorithm(), "kid": other.kid }),
                    &claims,
                ));
                bad.push(key.token_with(
                    &json!({ "alg": other.algorithm(), "kid": key.kid }),
                    &claims,
                ));
                bad.push(key.token_with(&other.header(), &claims));
            }
        }
        for algorithm in [
            "RS384", "RS512", "PS256", "ES384", "HS512", "ES256K", "rs256",
        ] {
            bad.push(key.token_with(&json!({ "alg": algorithm, "kid": key.kid }), &claims));
        }
    }
    // Names are looked up as they are; several keys need one.
    for kid in ["", "RSA", "rsa ", "../rsa", "rsa\0", "' or 1=1 --"] {
        bad.push(rsa.token_with(&json!({ "alg": "RS256", "kid": kid }), &claims));
    }
    bad.push(rsa.token_with(&json!({ "alg": "RS256" }), &claims));
    bad.push(rsa.token_with(&json!({ "alg": "RS256", "kid": ["rsa"] }), &claims));
    // A key that the token brings along, or says where to find.
    bad.push(stranger.token(&claims));
    for extra in [
        json!({ "jwk": stranger.jwk() }),
        json!({ "jku": "http://127.0.0.1:9/jwks.json" }),
        json!({ "x5u": "http://127.0.0.1:9/key.pem" }),
    ] {
        let mut header = stranger.header();
        let extra = extra.as_object().unwrap().clone();
        header.as_object_mut().unwrap().extend(extra);
        bad.push(stranger.token_with(&header, &claims));
    }
    // Extensions that would have to be understood.
    for critical in [json!(["exp"]), json!(["b64"]), json!([]), json!(null)] {
        let header = json!({ "alg": "RS256", "kid": "rsa", "crit": critical, "b64": true });
        bad.push(rsa.token_with(&header, &claims));
    }
    for token in bad {
        assert!(refused(&keys, &token).await, "{token}");
    }
}

#[tokio::test]
async fn a_key_that_is_alone_needs_no_name() {
    let (one, two) = (SigningKey::ed("one"), SigningKey::ed("two"));
    let nameless = one.token_with(&json!({ "alg": "EdDSA" }), &claims());
    let (args, _file) = by_file(&[&one]);
    assert!(Keys::new(&args).unwrap().verify(&nameless).await.is_ok());
    let (args, _file) = by_file(&[&one, &two]);
    assert!(refused(&Keys::new(&args).unwrap(), &nameless).await);
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let key = SigningKey::ec("a");
    let (args, _file) = by_file(&[&key]);
    let secret = "of the tests, and 32 bytes or more";
    let shared = AuthArgs {
        jwt_secret: Some(Secret::from(secret.to_owned())),
        ..AuthArgs::default()
    };
    let named = |args: AuthArgs| AuthArgs {
        jwt_issuer: Some("https://issuer".to_owned()),
        jwt_audience: Some("reading".to_owned()),
        ..args
    };
    let both = json!({ "iss": "https://issuer", "aud": "reading" });
    let with = |changes: Value| {
        let mut all = both.clone();
        let changes = changes.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(changes);
        claims_with(&all)
    };
    for (args, public) in [(named(args), true), (named(shared), false)] {
        let keys = Keys::new(&args).unwrap();
        let sign = |claims: &Value| {
            if public {
                key.token(claims)
            } else {
                hs256(&json!({ "alg": "HS256" }), claims, secret.as_bytes())
            }
        };
        for good in [
            json!({}),
            json!({ "type": null }),
            json!({ "aud": ["other", "reading"] }),
            json!({ "exp": now() - 5 }),
            json!({ "nbf": now() + 5 }),
            json!({ "nbf": now() - 5 }),
        ] {
            assert!(
                keys.verify(&sign(&with(good.clone()))).await.is_ok(),
                "{good}"
            );
        }
        for bad in [
            json!({ "exp": null }),
            json!({ "exp": now() - 15 }),
            json!({ "exp": 0 }),
            json!({ "exp": -1 }),
            json!({ "exp": "tomorrow" }),
            json!({ "exp": (now() + 600).to_string() }),
            json!({ "nbf": now() + 60 }),
            json!({ "nbf": "today" }),
            json!({ "iss": null }),
            json!({ "iss": "https://issuer/" }),
            json!({ "iss": ["https://issuer"] }),
            json!({ "aud": null }),
            json!({ "aud": "writing" }),
            json!({ "aud": [] }),
            json!({ "aud": 7 }),
            json!({ "type": "refresh" }),
            json!({ "type": "Access" }),
            json!({ "type": 1 }),
            json!({ "sub": null }),
            json!({ "sub": "" }),
            json!({ "sub": "x".repeat(256) }),
            json!({ "sub": 7 }),
        ] {
            assert!(refused(&keys, &sign(&with(bad.clone()))).await, "{bad}");
        }
    }
}

#[tokio::test]
async fn a_subject_is_one_reader_and_a_scope_makes_an_operator() {
    let key = SigningKey::rsa("a");
    let (args, _file) = by_file(&[&key]);
    let keys = Keys::new(&args).unwrap();
    let caller = async |changes: Value| {
        let token = key.token(&claims_with(&changes));
        keys.verify(&token).await.unwrap()
    };
    let user = Uuid::new_v4();
    let reader = caller(json!({ "sub": user })).await;
    assert_eq!(reader.reader_id.to_string(), user.to_string());
    assert!(!reader.admin);
    let jo = caller(json!({ "sub": "auth0|jo", "iss": "a" })).await;
    let again = caller(json!({ "sub": "auth0|jo", "iss": "a", "scope": "reading:admin" })).await;
    let other = caller(json!({ "sub": "auth0|jo", "iss": "b", "scp": ["x"] })).await;
    assert_eq!(jo.reader_id, again.reader_id);
    assert_ne!(jo.reader_id, other.reader_id);
    assert!(!jo.admin && again.admin && !other.admin);
}

#[tokio::test]
async fn garbage_is_answered_as_a_bad_token() {
    let key = SigningKey::ed("a");
    let (args, _file) = by_file(&[&key]);
    let keys = Keys::new(&args).unwrap();
    let app = App::trusting(args).await;
    let good = key.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let long = "A".repeat(12 * 1024);
    let texts = [
        "...".to_owned(),
        "..".to_owned(),
        ".".to_owned(),
        "x".to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}="),
        format!("{good}.{good}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{}", signature.to_lowercase()),
        format!("{payload}.{header}.{signature}"),
        format!("{long}.{payload}.{signature}"),
        format!("{header}.{long}.{signature}"),
        format!("{header}.{payload}.{long}"),
        "W10.W10.W10".to_owned(),
        "bnVsbA.bnVsbA.bnVsbA".to_owned(),
        "\u{2028}".to_owned(),
    ];
    for text in texts {
        assert!(refused(&keys, &text).await, "{text}");
        let value = HeaderValue::from_bytes(format!("Bearer {text}").as_bytes()).unwrap();
        let (status, problem) = call(&app, value).await;
        assert_eq!(status, 401, "{text}: {problem}");
    }
    let (status, _) = call(
        &app,
        HeaderValue::from_bytes(b"Bearer \xff\xfe.\xc3.x").unwrap(),
    )
    .await;
    assert_eq!(status, 401);

    // A head of a megabyte does not come as far as to be a token.
    let huge = format!("{}.{payload}.{signature}", "A".repeat(1024 * 1024));
    assert!(refused(&keys, &huge).await);
    let answer = app.client.get(format!("{}/active", app.url));
    let answer = answer.bearer_auth(&huge).send().await;
    // The connection may end while the head is still on its way.
    assert!(answer.map_or(true, |answer| answer.status() == 431));
    let bearer = format!("Bearer {good}").try_into().unwrap();
    assert_eq!(call(&app, bearer).await.0, 200);
}

#[tokio::test]
async fn a_new_key_is_fetched_once_for_all_who_bring_it() {
    let (old, new) = (SigningKey::rsa("old"), SigningKey::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let app = App::trusting(by_url(&issuer)).await;
    let reader = |key: &SigningKey| app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    let veteran = reader(&old);
    let _ = veteran.active().await.ok();
    assert_eq!(issuer.fetches(), 1);

    issuer.publish(&[&new]);
    let storm = async |key: &SigningKey| {
        let calls = (0..50).map(|_| reader(key)).map(async |reader| {
            let answer = reader.active().await;
            answer.status.as_u16()
        });
        futures::future::join_all(calls).await
    };
    assert_eq!(storm(&new).await, [200; 50]);
    assert_eq!(issuer.fetches(), 2, "one for all");
    // The key that was taken back opens nothing, known token or not.
    let _ = veteran.active().await.problem(401);
    let _ = reader(&old).active().await.problem(401);

    // Names that nobody has published do not make anyone ask again so soon.
    assert_eq!(storm(&SigningKey::ec("unknown")).await, [401; 50]);
    let unreadable = SigningKey::ed("new");
    assert_eq!(storm(&unreadable).await, [401; 50]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn an_issuer_that_fails_leaves_the_last_good_keys() {
    let (key, new) = (SigningKey::ed("key"), SigningKey::ed("new"));
    let huge = json!({ "keys": [new.jwk()], "padding": "x".repeat(300 * 1024) });
    let answers = [
        (StatusCode::INTERNAL_SERVER_ERROR, set_of(&[&new])),
        (StatusCode::FOUND, set_of(&[&new])),
        (StatusCode::NO_CONTENT, json!("")),
        (StatusCode::OK, json!("an error page")),
        (StatusCode::OK, json!({ "keys": [] })),
        (
            StatusCode::OK,
            json!({ "keys": [{ "kty": "oct", "k": "AA", "kid": "new" }] }),
        ),
        (StatusCode::OK, huge),
    ];
    for (status, body) in answers {
        let issuer = Issuer::start(&[&key]).await;
        let keys = Keys::new(&by_url(&issuer)).unwrap();
        assert!(keys.verify(&key.token(&claims())).await.is_ok());
        issuer.answer(status, body.to_string());
        assert!(refused(&keys, &new.token(&claims())).await, "{status}");
        assert_eq!(issuer.fetches(), 2, "it was asked for the new key");
        assert!(keys.verify(&key.token(&claims())).await.is_ok());
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_is_waited_for() {
    let key = SigningKey::rsa("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.answer(StatusCode::BAD_GATEWAY, String::new());
    let app = App::trusting(by_url(&issuer)).await;
    let reader = app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    let answer = reader.active().await;
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.headers.contains_key("www-authenticate"));
    assert!(answer.problem(503).contains("keys are not available yet"));
    // What no key could make good needs no key to be refused.
    let bearer = HeaderValue::from_static("Bearer x");
    assert_eq!(call(&app, bearer).await.0, 401);

    issuer.publish(&[&key]);
    until(async || reader.active().await.status == 200).await;
}

#[tokio::test]
async fn an_address_that_leads_elsewhere_is_not_followed() {
    let key = SigningKey::rsa("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.answer(StatusCode::FOUND, String::new());
    let keys = Keys::new(&by_url(&issuer)).unwrap();
    let verified = keys.verify(&key.token(&claims())).await;
    assert_eq!(verified, Err(Refusal::KeysUnavailable));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let (old, new, later) = (
        SigningKey::rsa("old"),
        SigningKey::ed("new"),
        SigningKey::ec("later"),
    );
    let (args, file) = by_file(&[&old]);
    let keys = Keys::new(&args).unwrap();
    let known = old.token(&claims());
    assert!(keys.verify(&known).await.is_ok());
    assert!(keys.verify(&known).await.is_ok());

    // At once for a new key.
    std::fs::write(&file, set_of(&[&new]).to_string()).unwrap();
    assert!(keys.verify(&new.token(&claims())).await.is_ok());
    assert!(refused(&keys, &known).await);

    // In a while, when nobody asks.
    let good = new.token(&claims());
    std::fs::write(&file, set_of(&[&later]).to_string()).unwrap();
    until(async || refused(&keys, &good).await).await;
    assert!(keys.verify(&later.token(&claims())).await.is_ok());

    // A file that is broken or gone changes nothing.
    let keys = Keys::new(&args).unwrap();
    let good = later.token(&claims());
    assert!(keys.verify(&good).await.is_ok());
    std::fs::write(&file, "{\"keys\": [").unwrap();
    assert!(refused(&keys, &new.token(&claims())).await);
    assert!(keys.verify(&good).await.is_ok());
    let keys = Keys::new(&args).unwrap();
    assert_eq!(keys.verify(&good).await, Err(Refusal::KeysUnavailable));
    std::fs::write(&file, set_of(&[&later]).to_string()).unwrap();
    until(async || keys.verify(&good).await.is_ok()).await;
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&keys, &new.token(&claims())).await);
    assert!(keys.verify(&good).await.is_ok());
}

/// Waits until something holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < NOTICED, "it does not come true");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_belongs_to_another_reader_is_not_there() {
    let app = App::start().await;
    let (owner, thief) = (app.reader(), app.reader());
    let book = Uuid::new_v4();
    // Long enough to count in every number.
    let ago = |minutes| services::clock::now() - TimeDelta::minutes(minutes);
    let start = json!({ "book_id": book, "occurred_at": ago(2) });
    let foreign = id(&owner.start_with(start).await.ok());
    let update = json!({ "current_position": 10, "occurred_at": ago(0) });
    let _ = owner.update_with(foreign, update).await.ok();
    app.settled().await;

    // The same answer as for a session that nobody has.
    let body = |answer: Answer| {
        let mut body = answer.body.clone();
        assert!(!answer.headers.contains_key("etag"));
        let _ = answer.problem(404);
        body["request_id"] = Value::Null;
        body
    };
    for (method, path, sent) in [
        (Method::GET, "", None),
        (
            Method::PUT,
            "/update",
            Some(json!({ "current_position": 50 })),
        ),
        (Method::PUT, "/end", Some(json!({ "end_position": 50 }))),
        (Method::PUT, "/end", Some(json!({}))),
    ] {
        let call = async |reader: &Reader, session: Uuid| {
            let path = format!("/{session}{path}");
            body(reader.call(method.clone(), &path, sent.clone()).await)
        };
        let none = call(&thief, Uuid::now_v7()).await;
        assert_eq!(call(&thief, foreign).await, none, "{method} {path}");
    }
    // A name that is taken by somebody else gives nothing of theirs away.
    let taken = json!({ "book_id": book, "session_id": foreign });
    let answer = thief.start_with(taken).await;
    assert!(answer.status.is_client_error(), "{}", answer.body);
    assert!(!answer.body.to_string().contains(&owner.id.to_string()));
    // In a batch it is one bad item.
    let item = async |session: Uuid| {
        let updates = json!([{ "session_id": session, "current_position": 50 }]);
        let answer = thief.batch(updates).await.ok();
        assert_eq!(answer["success_count"], 0);
        assert_eq!(answer["failed_count"], 1);
        answer.to_string().replace(&session.to_string(), "")
    };
    assert_eq!(item(foreign).await, item(Uuid::now_v7()).await);

    // Lists and numbers are one's own.
    assert_eq!(thief.active().await.ok(), Value::Null);
    for query in [String::new(), format!("?book_id={book}")] {
        let history = thief.history(&query).await.ok();
        assert_eq!(
            (&history["sessions"], &history["total"]),
            (&json!([]), &json!(0))
        );
    }
    let nobody = app.reader();
    for path in ["daily", "weekly", "streak", "patterns"] {
        let numbers = async |reader: &Reader| {
            let path = format!("/stats/{path}");
            reader.call(Method::GET, &path, None).await.ok()
        };
        assert_eq!(numbers(&thief).await, numbers(&nobody).await, "{path}");
        assert_ne!(numbers(&thief).await, numbers(&owner).await, "{path}");
    }

    // Nothing of it has touched the owner's session.
    let session = owner.session(foreign).await.ok();
    assert_eq!(session["end_position"], 10);
    assert_eq!(session["is_active"], true);
}

#[tokio::test]
async fn two_sources_of_keys_are_an_error_and_public_keys_do_not_sign() {
    let corner = Stack::shared().await.corner().await;
    let (args, file) = by_file(&[&SigningKey::ed("a")]);
    let file = file.to_str().unwrap();
    let user = Uuid::new_v4().to_string();
    let run = async |both: bool, arguments: &[&str]| {
        let mut command = command(&corner);
        if !both {
            command.env_remove("JWT_SECRET");
        }
        let output = command
            .args(arguments)
            .env("JWKS_FILE", file)
            .output()
            .await;
        let output = output.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let serve = [
        "serve",
        "--http-addr",
        "127.0.0.1:0",
        "--admin-addr",
        "127.0.0.1:0",
    ];
    let (code, _, error) = run(true, &serve).await;
    assert_eq!(code, Some(1));
    assert!(
        error.contains("JWT_SECRET and JWKS_FILE are set"),
        "{error}"
    );

    let (code, printed, error) = run(false, &["token", "--user", &user]).await;
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(error.contains("HS256 only"), "{error}");

    let (_, shown, _) = run(false, &["config"]).await;
    assert!(shown.contains(&format!("JWKS_FILE={file}\n")), "{shown}");
    assert!(shown.contains("JWT_SECRET=\n"), "{shown}");

    let mut none = tokio::process::Command::new(executable());
    let output = none
        .args(["token", "--user", &user])
        .env_remove("JWT_SECRET");
    let error = String::from_utf8(output.output().await.unwrap().stderr).unwrap();
    assert!(error.contains("must be set"), "{error}");
    drop(args);
}
