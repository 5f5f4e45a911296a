//! The name in a client's certificate, which the handshake has proven.

use shopfloor_runtime::tls::ClientCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::CertificateName;

/// `None` where the certificate has no such name, or an empty one.
pub(super) fn name(certificate: &ClientCertificate, part: CertificateName) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(&certificate.0).ok()?;
    let alternative = |pick: fn(&GeneralName<'_>) -> Option<String>| {
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(pick)
    };
    let name = match part {
        CertificateName::None => None,
        CertificateName::CommonName => {
            let mut names = certificate.subject().iter_common_name();
            let only = names.next().filter(|_| names.next().is_none());
            only.and_then(|name| name.as_str().ok()).map(str::to_owned)
        }
        CertificateName::DnsName => alternative(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }),
        CertificateName::Uri => alternative(|name| match name {
            GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }),
    };
    name.filter(|name| !name.is_empty() && !name.contains('\0'))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn the_configured_part_is_the_name_and_no_other() {
        let mut params = CertificateParams::new(["press-1.plant".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "press-1");
        let uri = "spiffe://plant/press-1".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = ClientCertificate(certificate.der().to_vec());
        for (part, expected) in [
            (CertificateName::CommonName, Some("press-1")),
            (CertificateName::DnsName, Some("press-1.plant")),
            (CertificateName::Uri, Some("spiffe://plant/press-1")),
            (CertificateName::None, None),
        ] {
            assert_eq!(name(&certificate, part).as_deref(), expected);
        }
        assert_eq!(
            name(
                &ClientCertificate(vec![0x30, 0x80, 1]),
                CertificateName::CommonName
            ),
            None
        );
    }

    #[test]
    fn a_certificate_without_the_part_names_nobody() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = ClientCertificate(certificate.der().to_vec());
        for part in [
            CertificateName::CommonName,
            CertificateName::DnsName,
            CertificateName::Uri,
        ] {
            assert_eq!(name(&certificate, part), None);
        }
    }
}
