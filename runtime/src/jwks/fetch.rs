//! The provider's key set, over http, https or from a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::Jwk;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::config::{Location, TokenConfig};

/// A provider has a handful of keys.
const MAX_SET_BYTES: usize = 1024 * 1024;

/// Why there is no new key set.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the address of the key set {0}")]
    Address(String),
    #[error("the authorities for the identity provider: {0}")]
    Authorities(String),
    #[error("the identity provider did not answer within {0} ms")]
    Timeout(u64),
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(String),
    #[error("the identity provider answered {0} to the request for its keys")]
    Status(StatusCode),
    #[error("the key set {0}")]
    Set(String),
}

#[derive(Debug)]
pub(super) enum Fetcher {
    Http {
        client: Box<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>>,
        address: Uri,
        timeout_ms: u64,
    },
    File(std::path::PathBuf),
}

impl Fetcher {
    pub(super) fn new(config: &TokenConfig) -> Result<Self, FetchError> {
        let location = config.jwks.as_deref().unwrap_or_default();
        match Location::parse(location).map_err(FetchError::Address)? {
            Location::File(path) => Ok(Self::File(path)),
            Location::Address(address) => Ok(Self::Http {
                client: Box::new(Client::builder(TokioExecutor::new()).build(connector(config)?)),
                address,
                timeout_ms: config.fetch_timeout_ms,
            }),
        }
    }

    /// Every key of the set that signatures can be verified with; others are for other purposes or for later readers.
    pub(super) async fn fetch(&self) -> Result<Vec<Jwk>, FetchError> {
        let bytes = match self {
            Self::File(path) => tokio::fs::read(path)
                .await
                .map(Bytes::from)
                .map_err(|error| FetchError::Set(format!("{} cannot be read: {error}", path.display())))?,
            Self::Http {
                client,
                address,
                timeout_ms,
            } => {
                let limit = Duration::from_millis(*timeout_ms);
                tokio::time::timeout(limit, discover(client, address))
                    .await
                    .map_err(|_elapsed| FetchError::Timeout(*timeout_ms))??
            }
        };
        parse(&bytes)
    }
}

/// The set, or what the provider's discovery document says of where it is (OpenID Connect Discovery 1.0).
async fn discover(
    client: &Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    address: &Uri,
) -> Result<Bytes, FetchError> {
    #[derive(serde::Deserialize)]
    struct Discovery {
        jwks_uri: String,
    }
    let bytes = get(client, address).await?;
    let Ok(Discovery { jwks_uri }) = serde_json::from_slice(&bytes) else {
        return Ok(bytes);
    };
    match Location::parse(&jwks_uri) {
        Ok(Location::Address(address)) => get(client, &address).await,
        _ => Err(FetchError::Set(
            "is said to be at what is no http or https address".into(),
        )),
    }
}

async fn get(
    client: &Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    address: &Uri,
) -> Result<Bytes, FetchError> {
    let request = Request::get(address)
        .header(header::ACCEPT, "application/json")
        .body(Empty::new())
        .map_err(|error| FetchError::Address(error.to_string()))?;
    let response = client.request(request).await.map_err(unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_SET_BYTES).collect().await;
    body.map(|body| body.to_bytes())
        .map_err(|error| FetchError::Set(format!("did not arrive whole: {error}")))
}

/// hyper's own text says no more than "client error".
fn unreachable(error: hyper_util::client::legacy::Error) -> FetchError {
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    FetchError::Unreachable(deepest.to_string())
}

fn connector(config: &TokenConfig) -> Result<HttpsConnector<HttpConnector>, FetchError> {
    let wrong = |why: String| FetchError::Authorities(why);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = match &config.jwks_ca {
        None => HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|error| wrong(error.to_string()))?,
        Some(file) => {
            let tls = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(error.to_string()))?
                .with_root_certificates(authorities(file).map_err(wrong)?)
                .with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(tls)
        }
    };
    Ok(builder.https_or_http().enable_http1().build())
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if roots.is_empty() {
        return Err(format!("{} has no certificate", file.display()));
    }
    Ok(roots)
}

fn parse(bytes: &[u8]) -> Result<Vec<Jwk>, FetchError> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(bytes)
        .map_err(|error| FetchError::Set(format!("is no JSON with keys: {error}")))?;
    let keys = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value(key).ok());
    Ok(keys.collect())
}
