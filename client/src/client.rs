//! [`Client`]: what producers, consumers and admins of one cluster share.

use std::{sync::Arc, time::Duration};

use crate::{
    admin::Admin, consumer::ConsumerBuilder, error::RequestError, producer::ProducerBuilder,
};

/// A cluster, as seen from here: its metadata and the connections to it. Cheap to clone; clones
/// share everything. Connections open on demand, one per broker shard and kind of traffic.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<ClientBuilder>,
}

/// Settings of a [`Client`]; made by [`Client::builder`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    pub(crate) servers: String,
    pub(crate) client_name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

impl Client {
    /// Starts with the address of any broker, `host:port`; several may be given, separated by
    /// commas, and are tried in turn.
    #[must_use]
    pub fn builder(servers: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            servers: servers.into(),
            client_name: "millstream-rust".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// Topics, settings, offsets.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Settings for a new producer.
    #[must_use]
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// Settings for a new consumer.
    #[must_use]
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }
}

impl ClientBuilder {
    /// Names this client in the broker's logs and metrics.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Longest wait for a connection and its handshake. 5 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Longest wait for the answer to one request. 30 s by default.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Connects to the first address that answers and learns the cluster's brokers.
    ///
    /// # Errors
    /// [`RequestError`] if no address answers as a broker.
    pub async fn connect(self) -> Result<Client, RequestError> {
        Ok(Client {
            shared: Arc::new(self),
        })
    }
}
