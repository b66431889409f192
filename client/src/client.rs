//! [`Client`]: what producers, consumers and admins of one cluster share.

use std::{sync::Arc, time::Duration};

use crate::{
    admin::Admin, clock::Clock, connection::Pool, consumer::ConsumerBuilder, error::RequestError,
    metadata::Metadata, producer::ProducerBuilder,
};

/// Where a server without a port listens.
const DEFAULT_PORT: u16 = 7400;

/// A cluster, as seen from here: its metadata and the connections to it. Cheap to clone; clones
/// share everything. Connections open on demand, one per broker shard and kind of traffic.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub clock: Clock,
    pub metadata: Metadata,
    pub request_timeout: Duration,
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
        let servers = parse_servers(&self.servers)?;
        let clock = Clock::start();
        let pool = Arc::new(Pool::new(self.client_name.into(), self.connect_timeout));
        let metadata = Metadata::new(pool, clock, servers, self.request_timeout);
        metadata.ask(Some(Vec::new()), false).await?;
        Ok(Client {
            shared: Arc::new(Shared {
                clock,
                metadata,
                request_timeout: self.request_timeout,
            }),
        })
    }
}

/// `host`, `host:port`, `[::1]:port`, several with commas.
fn parse_servers(servers: &str) -> Result<Vec<Arc<str>>, RequestError> {
    let mut parsed = Vec::new();
    for server in servers.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            Some(_) if !server.ends_with(']') => {
                return Err(RequestError::Configuration(
                    format!("{server:?}: write an IPv6 address in brackets, as in [::1]:7400")
                        .into(),
                ));
            }
            _ => (server, None),
        };
        let address = match port {
            None => format!("{host}:{DEFAULT_PORT}"),
            Some(port) if port.parse::<u16>().is_ok_and(|port| port != 0) && !host.is_empty() => {
                server.to_owned()
            }
            Some(_) => {
                return Err(RequestError::Configuration(
                    format!("{server:?} is no address; write host:port, as in 127.0.0.1:7400")
                        .into(),
                ));
            }
        };
        parsed.push(address.into());
    }
    match parsed.is_empty() {
        true => Err(RequestError::Configuration(
            "no server given; write host:port, as in 127.0.0.1:7400".into(),
        )),
        false => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_a_list_with_a_default_port() {
        let good = |servers: &str| -> Vec<String> {
            let parsed = parse_servers(servers).expect("good addresses");
            parsed.iter().map(ToString::to_string).collect()
        };
        assert_eq!(good("a:1, b ,[::1]:2"), ["a:1", "b:7400", "[::1]:2"]);
        assert_eq!(good("[::1]"), ["[::1]:7400"]);
        for bad in ["", ",", "a:", ":1", "a:x", "a:0", "a:70000", "::1"] {
            let error = parse_servers(bad).expect_err(bad);
            assert!(matches!(error, RequestError::Configuration(_)), "{bad}");
            assert!(!error.is_retriable());
        }
    }
}
