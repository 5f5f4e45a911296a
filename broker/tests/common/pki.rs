//! A factory's certificate authority, with files as an operator would have them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use shopfloor_runtime::tls::TlsConfig;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

pub struct Pki {
    pub dir: tempfile::TempDir,
    authority: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A device's certificate and key.
pub struct Device {
    pub certificate: Certificate,
    pub key: KeyPair,
}

impl Pki {
    /// An authority, and a server certificate for `localhost` with `serial`.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "plant");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let pki = Self {
            dir: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(params, key),
            authority,
        };
        pki.write("ca.pem", &pki.authority.pem());
        pki.write_server(1);
        pki
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        replace(&self.path(name), text);
    }

    /// A new certificate for the server, in place of the one that is there.
    pub fn write_server(&self, serial: u64) {
        let server = self.issue("localhost", serial);
        self.write("server.key", &server.key.serialize_pem());
        self.write("server.pem", &server.certificate.pem());
    }

    /// A certificate with this common name, which is also its DNS name.
    pub fn issue(&self, name: &str, serial: u64) -> Device {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        Device {
            certificate: params.signed_by(&key, &self.issuer).unwrap(),
            key,
        }
    }

    /// A revocation list of these serial numbers.
    pub fn write_crl(&self, revoked: &[u64]) {
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2054, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("crl.pem", &list.signed_by(&self.issuer).unwrap().pem().unwrap());
    }

    /// The server's certificate, no more.
    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: None,
            crl: None,
            require_client_certificate: false,
        }
    }

    /// A client that trusts this authority.
    pub fn connector(
        &self,
        device: Option<&Device>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let config = match device {
            None => builder.with_no_client_auth(),
            Some(device) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(device.key.serialize_der()));
                builder
                    .with_client_auth_cert(vec![device.certificate.der().clone()], key)
                    .unwrap()
            }
        };
        Arc::new(config).into()
    }
}

/// As a certificate manager does it: a new file takes the old one's name.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}
