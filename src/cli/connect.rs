//! How commands reach the broker.

use std::future::Future;

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::{Client, RequestError};

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
