//! How commands reach the broker.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::{Client, RequestError};
use tokio::time::{Instant, sleep, timeout_at};

/// Pause between two attempts to reach a broker that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Which broker.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Broker to connect to
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_SERVER",
        default_value = "127.0.0.1:7400"
    )]
    #[arg(value_name = "HOST:PORT")]
    pub server: String,
}

impl ConnectArgs {
    /// Connects.
    ///
    /// # Errors
    /// If no broker answers there.
    pub async fn client(&self) -> Result<Client, RequestError> {
        Client::builder(&self.server)
            .client_name("millstream-cli")
            .connect()
            .await
    }

    /// Tries something that begins with a connection again and again, until it succeeds or fails for good, or
    /// `patience` is over, whatever is under way then.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn keep_trying<T>(
        &self,
        patience: Duration,
        attempt: impl AsyncFn() -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let deadline = Instant::now() + patience;
        let mut last = RequestError::TimedOut {
            address: self.server.as_str().into(),
            timeout: patience,
        };
        while let Ok(result) = timeout_at(deadline, attempt()).await {
            match result {
                Err(error) if error.is_retriable() && Instant::now() < deadline => last = error,
                done => return done,
            }
            sleep(RETRY_PAUSE).await;
        }
        Err(last)
    }
}

/// Runs a command's async part on this thread.
///
/// # Errors
/// What the command says.
pub fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(command)
}
