//! Client, producer and consumer over loopback, against a small broker that can be told to fail.

mod consume;
mod coordinator;
mod fake;
mod group;
mod produce;

use std::time::Duration;

use millstream_client::Client;

use self::fake::Fake;

/// Longer than anything here takes, shorter than a patient person.
const LONG: Duration = Duration::from_secs(20);

async fn client(fake: &Fake) -> Client {
    Client::builder(&fake.address)
        .client_name("test")
        .connect()
        .await
        .expect("the fake accepts")
}
