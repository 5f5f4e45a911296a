//! Packets of one read, one after the other.

use tokio::io::{AsyncRead, AsyncWrite};

use super::close::Close;
use super::device::Connection;
use super::{outgoing, subscribe};
use crate::codec::{DecodeError, Disconnect, Frame, Packet, Protocol, decode, encode, frame, reason};
use crate::counts::Counts;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Handles every complete packet that was read; what they publish becomes batches.
    pub(crate) fn take_packets(&mut self) -> Result<(), Close> {
        let (chunk, error) = self.input.take_complete();
        self.intake.begin();
        let (mut at, mut packets, mut cost) = (0, 0, 0);
        let mut step = Ok(());
        while step.is_ok()
            && let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty())
        {
            let Ok(Frame::Complete { header, total }) = frame(rest, usize::MAX) else {
                break;
            };
            step = decode(&chunk, at..at + total, header, self.client.protocol)
                .map_err(Close::from)
                .and_then(|packet| self.packet(packet))
                .map(|extra| cost += extra);
            at += total;
            packets += 1;
        }
        self.packet_began = self.input.has_begun().then(|| {
            let waits_on = self.packet_began.filter(|_| packets == 0);
            waits_on.unwrap_or(self.last_read)
        });
        self.paused_until = self.throttle.spend(packets + cost, at, self.last_read);
        Counts::add(&self.hub.counts.packets_received, packets as u64);
        if let Some(batch) = self.intake.end(&self.hub) {
            self.acks.add(batch);
        }
        step?;
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// After each publish: a PUBREL behind it in the same read frees no place that it needed. A QoS 2 publish counts
    /// until its PUBREL, but only on the connection that it came on.
    fn check_receive_maximum(&self) -> Result<(), Close> {
        let unacknowledged = self.acks.qos_1() + self.intake.qos_1() + self.state.received.here();
        if self.client.protocol == Protocol::V5
            && unacknowledged > usize::from(self.hub.config.receive_maximum)
        {
            let rule = "more unacknowledged publishes than the receive maximum";
            return Err(Close::Protocol(DecodeError {
                reason: reason::RECEIVE_MAXIMUM_EXCEEDED,
                rule,
            }));
        }
        Ok(())
    }

    /// Gives what the packet costs beyond being one.
    fn packet(&mut self, packet: Packet) -> Result<usize, Close> {
        let Self {
            hub,
            client,
            session,
            state,
            output,
            ..
        } = self;
        match packet {
            Packet::Publish(publish) => {
                if let Some(full) = self.intake.publish(hub, state, publish)? {
                    self.acks.add(full);
                }
                self.check_receive_maximum()?;
            }
            Packet::PubAck(ack) => outgoing::puback(hub, session, state, ack)?,
            Packet::PubRec(ack) => outgoing::pubrec(hub, client, session, state, ack, output)?,
            Packet::PubRel(ack) => {
                if let Some(before) = self.intake.release(state, ack) {
                    self.acks.add(before);
                }
            }
            Packet::PubComp(ack) => outgoing::pubcomp(hub, session, state, ack)?,
            Packet::Subscribe(subscribe) => {
                self.outgoing.subscriptions_changed();
                return Ok(subscribe::subscribe(
                    hub, client, session, state, subscribe, output,
                )?);
            }
            Packet::Unsubscribe(unsubscribe) => {
                return Ok(subscribe::unsubscribe(
                    hub,
                    client,
                    session,
                    state,
                    &unsubscribe,
                    output,
                )?);
            }
            Packet::PingReq => encode::pingresp(&mut output.ready),
            Packet::Disconnect(disconnect) => return Err(self.disconnect(disconnect)),
            Packet::Connect(_) => return Err(DecodeError::protocol("a second CONNECT").into()),
            Packet::Auth => return Err(DecodeError::protocol("AUTH without an authentication method").into()),
        }
        Ok(0)
    }

    fn disconnect(&mut self, disconnect: Disconnect) -> Close {
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if self.client.ends_with_connection && expiry_s > 0 {
                return DecodeError::protocol("a session expiry in DISCONNECT after none in CONNECT").into();
            }
            self.state.expiry_s = expiry_s.min(self.hub.config.session.max_expiry_s);
        }
        let with_will = disconnect.reason != reason::SUCCESS;
        if !with_will {
            self.state.will = None;
        }
        Close::ByClient { with_will }
    }
}
