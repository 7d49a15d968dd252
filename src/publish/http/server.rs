//! Connections: how many, how long, and how large what comes before a request is.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::fault::{self, Dialect, Fault};
use super::{Shared, metrics, ollama, openai, page, play, security};

/// Largest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Pause after the system refused a connection, most likely for want of descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Clients at a time that are told that there are too many.
const MAX_REFUSED: usize = 64;

/// How long a client that is refused may take to read that.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);

/// Everything that may be asked.
pub(super) fn app(shared: &Arc<Shared>) -> TowerToHyperService<Router> {
    let routes = Router::new()
        .merge(openai::routes())
        .merge(ollama::routes())
        .merge(page::routes())
        .merge(play::routes())
        .merge(metrics::routes())
        .layer(from_fn_with_state(Arc::clone(shared), security::admitted))
        .layer(from_fn_with_state(Arc::clone(shared), metrics::counted))
        .layer(from_fn(fault::shaped))
        .with_state(Arc::clone(shared));
    TowerToHyperService::new(routes)
}

pub(super) async fn accept(
    listener: TcpListener,
    encryption: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
) {
    let app = app(&shared);
    let tls = encryption.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(shared.options.max_clients));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSED));
    // Dropped with this task, and with it every client's.
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::debug!("http: a connection was refused: {error}");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let (app, tls, shared) = (app.clone(), tls.clone(), Arc::clone(&shared));
            clients.spawn(async move {
                if let Err(error) = serve(stream, app, tls, &shared).await {
                    log::debug!("http: {error}");
                }
                drop(place);
            });
            continue;
        }
        shared.counts.refuse_client();
        // Who speaks TLS would not understand; and who asks for more than can be told is told nothing.
        if let (None, Ok(place)) = (&tls, Arc::clone(&refusals).try_acquire_owned()) {
            let limit = shared.options.max_clients;
            clients.spawn(async move {
                tokio::time::timeout(REFUSAL_WITHIN, refuse(stream, limit))
                    .await
                    .ok();
                drop(place);
            });
        }
    }
}

async fn serve(
    stream: TcpStream,
    app: TowerToHyperService<Router>,
    tls: Option<TlsAcceptor>,
    shared: &Shared,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Pieces of an answer are short, and waited for.
    stream.set_nodelay(true).ok();
    let patience = shared.patience();
    match tls {
        None => converse(stream, app, patience).await,
        Some(tls) => {
            let secure = tokio::time::timeout(patience, tls.accept(stream)).await;
            let secure = secure.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            converse(secure, app, patience).await
        }
    }
}

/// One connection, request after request.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    app: TowerToHyperService<Router>,
    patience: Duration,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = TimeoutStream::new(stream);
    // Who takes nothing of an answer is let go.
    stream.set_write_timeout(Some(patience));
    let stream: Pin<Box<_>> = Box::pin(stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = app.call(plain(request));
        async move {
            let response: Result<Response, Infallible> = answered.await;
            response
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

/// The request with its path as it was meant: some clients put their base's `/` and the path's one behind the other.
fn plain<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let path = uri.path();
    if !path.contains("//") && (path.len() == 1 || !path.ends_with('/')) {
        return request;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let query = uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let meant = PathAndQuery::try_from(format!("/{}{query}", parts.join("/")));
    let mut all = uri.clone().into_parts();
    if let Ok(meant) = meant {
        all.path_and_query = Some(meant);
    }
    if let Ok(uri) = Uri::from_parts(all) {
        *request.uri_mut() = uri;
    }
    request
}

/// One answer, whatever is asked, then the end.
async fn refuse(mut stream: TcpStream, limit: usize) -> io::Result<()> {
    let fault = Fault::busy(format!(
        "{limit} clients are connected already (http.max_clients): ask again later"
    ));
    let body = fault.body(Dialect::OpenAi).to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    // A connection that is closed over what was sent is reset, and takes the words along.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_they_were_meant() {
        for (sent, meant) in [
            ("/v1/models", "/v1/models"),
            ("//v1/models?a=1", "/v1/models?a=1"),
            ("/v1//chat///completions/", "/v1/chat/completions"),
            ("/", "/"),
            ("//", "/"),
        ] {
            let request = Request::builder().uri(sent).body(()).unwrap();
            assert_eq!(plain(request).uri().to_string(), meant);
        }
    }
}
