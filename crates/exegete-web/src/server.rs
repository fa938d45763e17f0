//! Serving until interrupted, with patience for slow clients but not without end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

use crate::routes::app_with;
use crate::{Access, Dashboard, Limits, Result, WebError};

/// Threads that may read files at once.
const READING_THREADS: usize = 8;

/// Serves a run on `addr` until Ctrl-C. `on_ready` is told the address in use, which matters for port 0, and who is answered
/// there.
///
/// # Errors
/// Those of [`Access::at`]; [`WebError::Bind`] if the address is taken.
pub fn serve(
    addr: SocketAddr,
    (token, hosts): (Option<String>, Vec<String>),
    dashboard: Dashboard,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    // Before anything is bound: an address that others could reach is refused as it stands.
    Access::at(addr, token.clone(), hosts.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(READING_THREADS)
        .enable_all()
        .build()
        .map_err(WebError::Serve)?;
    let served = runtime.block_on(async {
        let bind = |source| WebError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        let limits = Limits::default();
        let router = app_with(dashboard, Access::at(bound, token, hosts)?, limits.clone());
        on_ready(bound);
        tokio::select! {
            () = accept(listener, router, limits) => {}
            () = interrupted() => {}
        }
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn interrupted() {
    // Without a signal handler the process still ends at Ctrl-C, only less politely.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Takes connections without end, so many at once.
pub async fn accept(listener: TcpListener, router: Router, limits: Limits) {
    let room = Arc::new(Semaphore::new(limits.connections));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // One connection that came to nothing, or no file left for another: neither is a reason to stop.
            Err(_) => {
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // An answer is one piece; waiting to fill a packet would only delay it.
        let _ = stream.set_nodelay(true);
        let (router, limits) = (router.clone(), limits.clone());
        tokio::spawn(async move {
            let service = TowerToHyperService::new(router);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.patience)
                .max_buf_size(limits.head_bytes)
                .max_headers(limits.headers)
                .serve_connection(TokioIo::new(Patient::new(stream, limits.patience)), service);
            // What a client does wrong is told to the client.
            let _ = connection.await;
            drop(permit);
        });
    }
}

/// A connection on which each piece of an answer must be taken in time.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, deadline: None }
    }

    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        pieces: &[IoSlice],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.in_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
