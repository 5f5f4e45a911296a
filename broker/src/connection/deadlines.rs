//! How long a client may be silent, leave its packets unread, or stay.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::close::Close;
use super::device::Connection;

/// Time without traffic after which a large read buffer is given back.
const IDLE: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// When there is something to check next.
    pub(crate) fn deadline(&self) -> Instant {
        let patience = Duration::from_millis(self.hub.config.write_timeout_ms);
        let unread = self.output.unread_since().map(|since| since + patience);
        let silent = self.client.silence.map(|silence| self.last_read + silence);
        let slow = self.packet_began.map(|began| began + self.packet_timeout());
        let large = self.input.is_large().then(|| self.last_read + IDLE);
        let never = || Instant::now() + Duration::from_secs(24 * 3600);
        unread
            .into_iter()
            .chain(silent)
            .chain(slow)
            .chain(large)
            .chain(self.client.expires)
            .chain(self.paused_until)
            .min()
            .unwrap_or_else(never)
    }

    /// For one packet: a part of one keeps a buffer of its size.
    fn packet_timeout(&self) -> Duration {
        Duration::from_millis(self.hub.config.packet_timeout_ms)
    }

    pub(crate) fn check_time(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if self.client.expires.is_some_and(|expires| now >= expires) {
            return Err(Close::TokenExpired);
        }
        let patience = Duration::from_millis(self.hub.config.write_timeout_ms);
        if self
            .output
            .unread_since()
            .is_some_and(|since| now >= since + patience)
        {
            return Err(Close::WriteStalled);
        }
        if now >= self.last_read + IDLE {
            self.input.shrink();
        }
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
            self.last_read = now;
        }
        if !self.may_read() {
            // Nothing is read, so nothing can be missed.
            self.last_read = now;
            self.packet_began = self.packet_began.map(|_| now);
        }
        if self
            .packet_began
            .is_some_and(|began| now >= began + self.packet_timeout())
        {
            return Err(Close::PacketTimeout);
        }
        match self.client.silence {
            Some(silence) if now >= self.last_read + silence => Err(Close::KeepAlive),
            _ => Ok(()),
        }
    }
}
