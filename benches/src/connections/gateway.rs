//! The release binary, its configuration, its resident memory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shopfloor::parts::Backend;
use shopfloor::parts::process::free_port;
use shopfloor_tests::server::Server;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::device::Wire;

/// Memory that has not become less for this long has settled.
const SETTLED: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) struct Gateway {
    server: Server,
    plain: SocketAddr,
    tls: SocketAddr,
    connector: TlsConnector,
    _dir: TempDir,
}

impl Gateway {
    /// With every default but those that `count` connections from this one machine need otherwise: so many places on
    /// each listener, and so many connects in a second. The limit by address (10,000) stands: clients have several.
    pub(crate) fn start(count: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = Backend::on_free_ports()?;
        let tls: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (dir.path().join("server.pem"), dir.path().join("server.key"));
        fs::write(&certificate, own.cert.pem())?;
        fs::write(&key, own.signing_key.serialize_pem())?;
        let limits = format!(
            "max_connections = {}\nmax_connects_per_s = {}",
            // Those that were cut may not have been noticed when all come again.
            3 * count + 1_000,
            (2 * count).max(5_000)
        );
        let config = format!(
            r#"
[gateway]
data_dir = "{data}"

[mqtt.auth]
allow_anonymous = true

[[mqtt.listeners]]
listen = "{plain}"
{limits}

[[mqtt.listeners]]
listen = "{tls}"
transport = "tls"
tls = {{ certificate = "{certificate}", key = "{key}" }}
{limits}

[mqtt.session]
max_sessions = {sessions}

[bridge]
drain_timeout_ms = 0

[bridge.kafka]
bootstrap_servers = "127.0.0.1:1"

[admin]
listen = "{admin}"
"#,
            data = dir.path().join("data").display(),
            plain = at.address,
            certificate = certificate.display(),
            key = key.display(),
            sessions = (2 * count).max(50_000),
            admin = at.admin(),
        );
        let mut server = Server::spawn("gateway", dir.path(), &config, at.admin());
        // It blocks, and this thread is a runtime's.
        tokio::task::block_in_place(|| server.wait_ready());
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone())?;
        let trusting = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            server,
            plain: at.address,
            tls,
            connector: Arc::new(trusting).into(),
            _dir: dir,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.plain
    }

    pub(crate) fn plain(&self) -> Wire {
        Wire::plain(self.plain)
    }

    pub(crate) fn tls(&self) -> Wire {
        Wire::tls(self.tls, self.connector.clone())
    }

    /// Resident memory once it does not fall any more: buffers of what was under way are given back.
    pub(crate) async fn settled_kib(&self) -> Result<usize> {
        let (mut least, mut since) = (usize::MAX, Instant::now());
        while since.elapsed() < SETTLED {
            let now = self.resident_kib()?;
            if now < least {
                (least, since) = (now, Instant::now());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(least)
    }

    fn resident_kib(&self) -> Result<usize> {
        let file = format!("/proc/{}/status", self.server.process_id());
        let status = fs::read_to_string(&file).with_context(|| file.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        kib.with_context(|| format!("no VmRSS in {file}"))
    }
}
