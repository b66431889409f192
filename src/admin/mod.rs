//! The admin HTTP server: `/metrics`, `/healthz`, `/readyz`, on a thread of low priority.
//!
//! A long scrape delays neither a shard nor the control thread: what it shows is collected by the
//! closures it was given, which only read counters.

mod metrics;
mod process;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::sync::oneshot;

pub use metrics::{Family, FamilySource, Kind, Sample, render};
pub use process::process_families;

/// How much less than the shards this thread wants the processor.
const NICENESS: i32 = 10;

/// A check: fine, or a sentence that says what is not.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the server shows.
pub struct AdminSources {
    /// Called at each scrape.
    pub metrics: Vec<FamilySource>,
    /// Whether the process does its work; if not, only a restart helps.
    pub health: Check,
    /// Whether clients should be sent here now.
    pub ready: Check,
}

impl std::fmt::Debug for AdminSources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminSources")
            .field("metrics", &self.metrics.len())
            .finish_non_exhaustive()
    }
}

/// The running server.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Admin {
    /// Listens and serves until [`Admin::stop`].
    ///
    /// # Errors
    /// The address cannot be listened on, or no thread can be had.
    pub fn start(address: SocketAddr, sources: AdminSources) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                lower_priority();
                if let Err(error) = runtime.block_on(serve(listener, sources, stopped)) {
                    tracing::error!(%error, "the admin server ended");
                }
            })?;
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server; connections that are open are dropped.
    pub fn stop(self) {
        // An error means that it has ended already.
        let _ = self.stop.send(());
        self.thread.join().expect("the admin thread does not panic");
    }
}

/// On Linux the priority belongs to the calling thread alone.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the admin thread keeps its priority");
    }
}

async fn serve(
    listener: TcpListener,
    sources: AdminSources,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let server = axum::serve(listener, router(sources)).into_future();
    tokio::select! {
        result = server => result,
        _ = stopped => Ok(()),
    }
}

fn router(sources: AdminSources) -> Router {
    Router::new()
        .route("/", get(async || "/metrics\n/healthz\n/readyz\n"))
        .route("/metrics", get(scrape))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(Arc::new(sources))
}

async fn scrape(State(sources): State<Arc<AdminSources>>) -> impl IntoResponse {
    let families = sources.metrics.iter().flat_map(|source| source()).collect();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], render(families))
}

async fn health(State(sources): State<Arc<AdminSources>>) -> impl IntoResponse {
    verdict((sources.health)(), "healthy")
}

async fn ready(State(sources): State<Arc<AdminSources>>) -> impl IntoResponse {
    verdict((sources.ready)(), "ready")
}

fn verdict(result: Result<(), String>, fine: &str) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, format!("{fine}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn metrics_health_and_readiness_over_http() {
        let is_ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_ready);
        let source: FamilySource = Box::new(|| {
            vec![Family::counter(
                "millstream_test_records",
                "Records.",
                [Sample::plain(7.0)],
            )]
        });
        let sources = AdminSources {
            metrics: vec![source, Box::new(process_families)],
            health: Box::new(|| Ok(())),
            ready: Box::new(move || match asked.load(Ordering::Acquire) {
                true => Ok(()),
                false => Err("partitions are being opened".to_owned()),
            }),
        };
        let admin = Admin::start(([127, 0, 0, 1], 0).into(), sources).unwrap();
        let metrics = get(admin.address(), "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(
            metrics.contains("application/openmetrics-text"),
            "{metrics}"
        );
        assert!(
            metrics.contains("millstream_test_records_total 7"),
            "{metrics}"
        );
        assert!(
            metrics.contains("process_resident_memory_bytes "),
            "{metrics}"
        );
        assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
        assert!(get(admin.address(), "/healthz").contains("200 OK"));
        let refused = get(admin.address(), "/readyz");
        assert!(
            refused.contains("503") && refused.contains("being opened"),
            "{refused}"
        );
        is_ready.store(true, Ordering::Release);
        assert!(get(admin.address(), "/readyz").contains("200 OK"));
        assert!(get(admin.address(), "/other").contains("404"));
        // A connection that says nothing does not keep the server from ending.
        let _silent = TcpStream::connect(admin.address()).unwrap();
        admin.stop();
    }
}
