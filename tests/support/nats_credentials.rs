//! A NATS operator with one account, and credentials files of its users.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

/// The keys that sign the users of a server.
pub struct Operator {
    key: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    /// Creates an operator with keys of its own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            key: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
        }
    }

    /// The settings of a server that accepts only users of this operator.
    #[must_use]
    pub fn settings(&self) -> Value {
        let operator = json!({ "type": "operator", "version": 2 });
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
            "leaf": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let account = json!({ "type": "account", "version": 2, "limits": limits });
        let mut system = account.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            system["limits"][limit] = json!(0);
        }
        let (main, second) = (self.account.public_key(), self.system.public_key());
        json!({
            "operator": jwt(&self.key, &self.key, &operator),
            "system_account": second,
            "resolver": "MEMORY",
            "resolver_preload": {
                main: jwt(&self.key, &self.account, &account),
                second: jwt(&self.key, &self.system, &system),
            },
        })
    }

    /// The text of a credentials file of a new user.
    #[must_use]
    pub fn credentials(&self) -> String {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let token = jwt(&self.account, &user, &claims);
        let seed = user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

impl Default for Operator {
    fn default() -> Self {
        Self::new()
    }
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": Uuid::new_v4(),
        "iat": eventlog::clock::now().timestamp(),
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": "test",
        "nats": claims,
    });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
