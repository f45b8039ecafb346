//! Reads the stream as an analytics consumer does.

use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config;
use futures::StreamExt;
use messaging::Subjects;
use serde_json::Value;
use server::connect;

use crate::app;
use crate::stack::TestEnv;

/// A message of the stream.
#[derive(Debug)]
pub struct Published {
    pub subject: String,
    /// The `Nats-Msg-Id` header.
    pub message_id: String,
    /// The payload, parsed.
    pub event: Value,
    /// The payload as received.
    pub text: String,
}

/// All messages of the stream, in order.
pub async fn read_all(env: &TestEnv) -> Vec<Published> {
    let jetstream = connect::jetstream(&app::settings(env, &[]).nats)
        .await
        .unwrap();
    let name = Subjects::new(&env.nats_prefix).stream().to_owned();
    let mut stream = jetstream.get_stream(name).await.unwrap();
    let mut left = stream.info().await.unwrap().state.messages;
    let consumer = stream
        .create_consumer(Config {
            ack_policy: AckPolicy::None,
            ..Config::default()
        })
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut published = Vec::new();
    while left > 0 {
        let message = messages.next().await.expect("more events").unwrap();
        published.push(Published {
            subject: message.subject.to_string(),
            message_id: message
                .headers
                .as_ref()
                .unwrap()
                .get("Nats-Msg-Id")
                .unwrap()
                .to_string(),
            event: serde_json::from_slice(&message.payload).unwrap(),
            text: String::from_utf8(message.payload.to_vec()).unwrap(),
        });
        left -= 1;
    }
    published
}
