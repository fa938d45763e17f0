//! Serving on a loopback address until interrupted.

use std::net::SocketAddr;

use crate::{Dashboard, Result, WebError, app};

/// Serves a run on `addr` until Ctrl-C. `on_ready` is told the address in use, which matters for port 0.
///
/// # Errors
/// [`WebError::NotLoopback`] for an address that other machines could reach; [`WebError::Bind`] if it is taken.
pub fn serve(addr: SocketAddr, dashboard: Dashboard, on_ready: impl FnOnce(SocketAddr)) -> Result<()> {
    if !addr.ip().is_loopback() {
        return Err(WebError::NotLoopback(addr));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(WebError::Serve)?.block_on(async {
        let bind = |source| WebError::Bind { addr, source };
        let listener = tokio::net::TcpListener::bind(addr).await.map_err(bind)?;
        on_ready(listener.local_addr().map_err(bind)?);
        let stop = async {
            // Without a signal handler the process still ends at Ctrl-C, only less politely.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        axum::serve(listener, app(dashboard)).with_graceful_shutdown(stop).await.map_err(WebError::Serve)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_served() {
        for (addr, loopback) in [("127.0.0.1:0", true), ("[::1]:0", true), ("0.0.0.0:0", false), ("10.0.0.1:80", false)]
        {
            assert_eq!(addr.parse::<SocketAddr>().unwrap().ip().is_loopback(), loopback, "{addr}");
        }
    }
}
