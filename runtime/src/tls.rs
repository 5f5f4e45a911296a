//! TLS 1.2 and 1.3 for a listener: certificate, clients' authority and revocations, replaced whole while connections
//! go on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::problem::Problem;
use crate::reload::Reload;
use crate::stream::Replayed;

/// The PEM files of a listener. They are read again when they change and on SIGHUP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and the authorities between it and the root.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities of clients' certificates; without them none is asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of those authorities, one or more in a file; every one of them must then have its list.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// A client without a certificate is not let in.
    #[serde(default)]
    pub require_client_certificate: bool,
}

impl TlsConfig {
    pub(crate) fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if self.client_ca.is_none() && (self.crl.is_some() || self.require_client_certificate) {
            out.push(Problem::new(
                format!("{at}.client_ca"),
                "is missing: there is no authority for clients' certificates",
                "name the PEM file of their authority",
            ));
        }
        let TlsErrors(errors) = match server_config(self) {
            Ok(_) => return,
            Err(errors) => errors,
        };
        out.extend(
            errors
                .into_iter()
                .map(|error| Problem::new(format!("{at}.{}", error.key), error.why, error.remedy)),
        );
    }
}

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
#[error("TLS {key}: {why}; {remedy}")]
struct TlsError {
    key: &'static str,
    why: String,
    remedy: &'static str,
}

/// What is wrong with any of them.
#[derive(Debug)]
pub(crate) struct TlsErrors(Vec<TlsError>);

impl std::error::Error for TlsErrors {}

impl fmt::Display for TlsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(TlsError::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

impl From<TlsError> for TlsErrors {
    fn from(error: TlsError) -> Self {
        Self(vec![error])
    }
}

/// A client's certificate (DER) that the handshake has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(pub Vec<u8>);

/// The current certificate of one listener.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn load(files: TlsConfig) -> Result<Self, TlsErrors> {
        Ok(Self {
            current: RwLock::new(server_config(&files)?),
            files,
        })
    }

    /// The handshake, with what is current as it begins. The caller sets the deadline.
    pub(crate) async fn accept(
        &self,
        stream: Replayed,
    ) -> io::Result<(TlsStream<Replayed>, Option<ClientCertificate>)> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let stream = TlsAcceptor::from(current).accept(stream).await?;
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|certificate| ClientCertificate(certificate.to_vec()));
        Ok((stream, certificate))
    }
}

impl Reload for Tls {
    fn what(&self) -> &'static str {
        "tls"
    }

    fn files(&self) -> Vec<PathBuf> {
        let TlsConfig {
            certificate,
            key,
            client_ca,
            crl,
            ..
        } = &self.files;
        [Some(certificate), Some(key), client_ca.as_ref(), crl.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn reload(&self) -> Result<(), String> {
        let fresh = server_config(&self.files).map_err(|error| error.to_string())?;
        // A new configuration forgets the sessions of the old one: who is revoked cannot resume.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

fn server_config(files: &TlsConfig) -> Result<Arc<ServerConfig>, TlsErrors> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Each is looked at, whatever is wrong with the others.
    let (verifier, own) = match (
        client_verifier(files, &provider),
        own_certificate(files, &provider),
    ) {
        (Ok(verifier), Ok(own)) => (verifier, own),
        (verifier, own) => {
            let errors = [verifier.err(), own.err()].into_iter().flatten();
            return Err(TlsErrors(errors.flat_map(|errors| errors.0).collect()));
        }
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError {
            key: "certificate",
            why: error.to_string(),
            remedy: "this build offers no protocol version",
        })?
        .with_client_cert_verifier(verifier);
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(own))))
}

fn own_certificate(files: &TlsConfig, provider: &CryptoProvider) -> Result<SingleCertAndKey, TlsErrors> {
    let chain = certificates("certificate", &files.certificate);
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable("key", &files.key, &error));
    let (chain, key) = both(chain, key)?;
    let own = CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError {
        key: "key",
        why: format!(
            "{} does not go with {}: {error}",
            files.key.display(),
            files.certificate.display()
        ),
        remedy: "name the certificate's own private key",
    })?;
    Ok(own.into())
}

fn client_verifier(
    files: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsErrors> {
    let Some(file) = &files.client_ca else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let (roots, lists) = both(
        authorities(file),
        files.crl.as_deref().map_or(Ok(Vec::new()), revocations),
    )?;
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).with_crls(lists);
    if !files.require_client_certificate {
        builder = builder.allow_unauthenticated();
    }
    Ok(builder.build().map_err(|error| TlsError {
        key: if files.crl.is_some() { "crl" } else { "client_ca" },
        why: error.to_string(),
        remedy: "give certificates and revocation lists of the clients' authority in PEM",
    })?)
}

/// Both, or the errors of both.
fn both<A, B>(a: Result<A, TlsError>, b: Result<B, TlsError>) -> Result<(A, B), TlsErrors> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(TlsErrors([a.err(), b.err()].into_iter().flatten().collect())),
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", file)? {
        roots
            .add(certificate)
            .map_err(|error| unreadable("client_ca", file, &error))?;
    }
    Ok(roots)
}

fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("crl", file, &error))?;
    if lists.is_empty() {
        return Err(empty("crl", file));
    }
    Ok(lists)
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(key, file, &error))?;
    if certificates.is_empty() {
        return Err(empty(key, file));
    }
    Ok(certificates)
}

fn unreadable(key: &'static str, file: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError {
        key,
        why: format!("{} cannot be read: {error}", file.display()),
        remedy: "name a PEM file that this process may read",
    }
}

fn empty(key: &'static str, file: &Path) -> TlsError {
    TlsError {
        key,
        why: format!("{} holds none", file.display()),
        remedy: "name a PEM file that this process may read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn own(dir: &tempfile::TempDir) -> TlsConfig {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        TlsConfig {
            certificate: write(dir, "cert.pem", &own.cert.pem()),
            key: write(dir, "key.pem", &own.signing_key.serialize_pem()),
            client_ca: None,
            crl: None,
            require_client_certificate: false,
        }
    }

    #[test]
    fn a_bad_file_leaves_the_old_certificate_in_force_and_a_good_one_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls::load(own(&dir)).unwrap();
        let current = || Arc::clone(&tls.current.read().unwrap());
        let first = current();
        for bad in ["", "-----BEGIN CERTIFICATE-----\nnonsense"] {
            write(&dir, "cert.pem", bad);
            assert!(tls.reload().is_err());
            assert!(Arc::ptr_eq(&first, &current()));
        }
        // Between the two files of a new pair.
        let half = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        write(&dir, "cert.pem", &half.cert.pem());
        assert!(tls.reload().unwrap_err().contains("does not go with"));
        assert!(Arc::ptr_eq(&first, &current()));
        write(&dir, "key.pem", &half.signing_key.serialize_pem());
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&first, &current()));
    }

    fn problem(config: &TlsConfig) -> String {
        let mut out = Vec::new();
        config.problems("l.tls", &mut out);
        assert_eq!(out.len(), 1, "{out:?}");
        out[0].to_string()
    }

    #[test]
    fn each_file_that_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = own(&dir);
        let other = rcgen::KeyPair::generate().unwrap();
        let mut out = Vec::new();
        good.problems("l.tls", &mut out);
        assert!(out.is_empty(), "{out:?}");

        let missing = TlsConfig {
            certificate: dir.path().join("none.pem"),
            ..good.clone()
        };
        assert!(problem(&missing).starts_with("l.tls.certificate: "));
        let foreign = TlsConfig {
            key: write(&dir, "other.pem", &other.serialize_pem()),
            ..good.clone()
        };
        assert!(
            problem(&foreign).starts_with("l.tls.key: "),
            "{}",
            problem(&foreign)
        );
        let no_list = TlsConfig {
            client_ca: Some(good.certificate.clone()),
            crl: Some(good.certificate.clone()),
            ..good.clone()
        };
        assert!(
            problem(&no_list).starts_with("l.tls.crl: "),
            "{}",
            problem(&no_list)
        );
        let no_authority = TlsConfig {
            require_client_certificate: true,
            ..good
        };
        assert!(problem(&no_authority).starts_with("l.tls.client_ca: "));
    }
}
