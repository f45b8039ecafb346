//! Every kind of key, and every kind of forged or invalid token.

use api::auth::{TokenVerifier, VerifyError};
use api::secret::Secret;
use axum::http::HeaderValue;
use serde_json::{Value, json};
use server::config::AuthArgs;
use tests::issuer::{Issuer, SigningKey, hs256, message};
use tests::process::{command, executable};
use tests::reader::id;
use tests::{App, Stack};
use uuid::Uuid;

use super::{by_file, by_url, call, claims, claims_with, now, refused, verify};

#[tokio::test]
async fn token_of_each_key_type_is_accepted() {
    let keys = [
        SigningKey::rsa("one"),
        SigningKey::ec("two"),
        SigningKey::ed("three"),
    ];
    let issuer = Issuer::start(&keys.each_ref()).await;
    let app = App::with_auth(by_url(&issuer)).await;
    for key in &keys {
        let user = Uuid::new_v4();
        let token = key.token(&claims_with(&json!({ "sub": user })));
        let reader = app.reader_with_token(user, token);
        let session = reader.start(Uuid::new_v4()).await.ok();
        assert_eq!(session["user_id"], json!(user), "{}", key.algorithm());
        // The second request uses the cached token.
        assert_eq!(reader.session(id(&session)).await.ok()["id"], session["id"]);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn forged_key_algorithm_or_key_id_is_rejected() {
    let (rsa, ec, ed) = (
        SigningKey::rsa("rsa"),
        SigningKey::ec("ec"),
        SigningKey::ed("ed"),
    );
    let stranger = SigningKey::rsa("rsa");
    let (args, _file) = by_file(&[&rsa, &ec, &ed]);
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let claims = claims();
    assert!(verify(&verifier, &rsa.token(&claims)).await.is_ok());

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
        // A valid signature with another key's id, algorithm, or both.
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
    // Key ids are compared literally, and required if there are several keys.
    for kid in ["", "RSA", "rsa ", "../rsa", "rsa\0", "' or 1=1 --"] {
        let token = rsa.token_with(&json!({ "alg": "RS256", "kid": kid }), &claims);
        assert_eq!(verifier.verify(&token), Err(VerifyError::UnknownKey));
        assert!(verifier.verify_after_refresh(&token).await.is_err());
    }
    bad.push(rsa.token_with(&json!({ "alg": "RS256" }), &claims));
    bad.push(rsa.token_with(&json!({ "alg": "RS256", "kid": ["rsa"] }), &claims));
    // A key that the token contains or links to.
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
    // Types of tokens for another purpose.
    for kind in ["dpop+jwt", "logout+jwt", "id_token+jwt", ""] {
        let header = json!({ "alg": "RS256", "kid": "rsa", "typ": kind });
        bad.push(rsa.token_with(&header, &claims));
    }
    let header = json!({ "alg": "RS256", "kid": "rsa", "typ": "at+jwt" });
    let access_token = rsa.token_with(&header, &claims);
    assert!(verify(&verifier, &access_token).await.is_ok());
    // Critical extensions, which a verifier must understand (RFC 7515, 4.1.11).
    for critical in [json!(["exp"]), json!(["b64"]), json!([]), json!(null)] {
        let header = json!({ "alg": "RS256", "kid": "rsa", "crit": critical, "b64": true });
        bad.push(rsa.token_with(&header, &claims));
    }
    for token in bad {
        assert!(refused(&verifier, &token).await, "{token}");
    }
}

#[tokio::test]
async fn single_key_needs_no_key_id() {
    let (one, two) = (SigningKey::ed("one"), SigningKey::ed("two"));
    let without_id = one.token_with(&json!({ "alg": "EdDSA" }), &claims());
    let (args, _file) = by_file(&[&one]);
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    assert!(verify(&verifier, &without_id).await.is_ok());
    let (args, _file) = by_file(&[&one, &two]);
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    // The first token waits for the set.
    assert!(verify(&verifier, &one.token(&claims())).await.is_ok());
    assert!(refused(&verifier, &without_id).await);
}

#[tokio::test]
async fn invalid_claims_are_rejected() {
    let key = SigningKey::ec("a");
    let (args, _file) = by_file(&[&key]);
    let secret = "a test secret of 32 bytes or more";
    let shared = AuthArgs {
        jwt_secret: Some(Secret::from(secret.to_owned())),
        ..AuthArgs::default()
    };
    let with_issuer = |args: AuthArgs| AuthArgs {
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
    for (args, public) in [(with_issuer(args), true), (with_issuer(shared), false)] {
        let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
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
            let result = verify(&verifier, &sign(&with(good.clone()))).await;
            assert!(result.is_ok(), "{good}");
        }
        for expired in [now() - 15, 0] {
            let token = sign(&with(json!({ "exp": expired })));
            let result = verify(&verifier, &token).await;
            assert_eq!(result, Err(VerifyError::ExpiredToken), "{expired}");
            // Only a genuine token is expired: otherwise anyone could avoid the limit for
            // invalid ones.
            let (message, _) = token.rsplit_once('.').unwrap();
            assert!(refused(&verifier, &format!("{message}.AAAA")).await);
        }
        for bad in [
            json!({ "exp": null }),
            json!({ "exp": -1 }),
            json!({ "exp": "tomorrow" }),
            json!({ "exp": now() - 15, "aud": "writing" }),
            json!({ "exp": now() - 15, "type": "refresh" }),
            // An ID token.
            json!({ "nonce": "n-0S6_WzA2Mj" }),
            json!({ "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng" }),
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
            assert!(refused(&verifier, &sign(&with(bad.clone()))).await, "{bad}");
        }
    }
}

#[tokio::test]
async fn malformed_token_returns_401() {
    let key = SigningKey::ed("a");
    let (args, _file) = by_file(&[&key]);
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let app = App::with_auth(args).await;
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
        assert!(refused(&verifier, &text).await, "{text}");
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

    // Headers of a megabyte are rejected before the token is parsed.
    let huge = format!("{}.{payload}.{signature}", "A".repeat(1024 * 1024));
    assert!(refused(&verifier, &huge).await);
    let request = app.client.get(format!("{}/active", app.url));
    let response = request.bearer_auth(&huge).send().await;
    // The connection may close while the client still sends the headers.
    assert!(response.map_or(true, |response| response.status() == 431));
    let bearer = format!("Bearer {good}").try_into().unwrap();
    assert_eq!(call(&app, bearer).await.0, 200);
}

#[tokio::test]
async fn ambiguous_or_incomplete_settings_fail() {
    let env = Stack::shared().await.new_env().await;
    let (args, file) = by_file(&[&SigningKey::ed("a")]);
    let file = file.to_str().unwrap();
    let user = Uuid::new_v4().to_string();
    let run = async |both: bool, arguments: &[&str]| {
        let mut command = command(&env);
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

    // Otherwise tokens for other services of the issuer would be accepted.
    let (code, _, error) = run(false, &serve).await;
    assert_eq!(code, Some(1));
    assert!(
        error.contains("JWT_ISSUER must be set with JWKS_FILE"),
        "{error}"
    );

    let (code, printed, error) = run(false, &["token", "--user", &user]).await;
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(error.contains("only the issuer can"), "{error}");

    let (_, shown, _) = run(false, &["config"]).await;
    assert!(shown.contains(&format!("JWKS_FILE={file}\n")), "{shown}");
    assert!(shown.contains("JWT_SECRET=\n"), "{shown}");
    assert!(shown.contains("JWT_SUBJECTS=canonical-uuid\n"), "{shown}");

    let mut none = tokio::process::Command::new(executable());
    let output = none
        .args(["token", "--user", &user])
        .env_remove("JWT_SECRET");
    let error = String::from_utf8(output.output().await.unwrap().stderr).unwrap();
    assert!(error.contains("set one of JWT_SECRET"), "{error}");
    drop(args);
}
