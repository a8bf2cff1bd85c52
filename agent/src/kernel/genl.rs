//! The kernel's WireGuard as it speaks: one socket, one answer awaited for each message. Blocking.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{
        GenlCtrl, GenlCtrlCmd,
        nlas::GenlCtrlAttrs::{FamilyId, FamilyName},
    },
};
use netlink_packet_wireguard::{Wireguard, WireguardCmd, nlas::WgDeviceAttrs};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use zeroize::Zeroize as _;

/// What a message may hold: as much as one attribute, the list of peers, can say of its length, and
/// some room. A dump comes in pieces of this size, too.
pub(crate) const MESSAGE: usize = 32 * 1024;
const HEADERS: usize = 64;

/// How often a dump is begun again because the device changed meanwhile.
const INTERRUPTIONS: u32 = 10;
/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

/// A connection to the kernel's WireGuard.
pub(crate) struct Genl {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Genl {
    /// Fails with `NotFound` while the kernel has no WireGuard.
    pub(crate) fn connect() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let protocol = SockProtocol::NetlinkGeneric;
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let buffer = vec![0; MESSAGE + HEADERS];
        let mut genl = Self { socket, family: 0, sequence: 0, buffer };
        genl.family = genl.resolve()?;
        Ok(genl)
    }

    /// Changes a device.
    pub(crate) fn set(&mut self, attributes: Vec<WgDeviceAttrs>) -> io::Result<()> {
        let message = Wireguard { cmd: WireguardCmd::SetDevice, nlas: attributes };
        self.send(self.addressed(message), NLM_F_REQUEST | NLM_F_ACK)?;
        self.answers(|_: Wireguard| {}).map(drop)
    }

    /// All that a device is, a piece at a time. What was taken in is void if `restart` is called.
    pub(crate) fn dump<T: Default>(
        &mut self,
        interface: &str,
        mut take: impl FnMut(&mut T, Vec<WgDeviceAttrs>),
    ) -> io::Result<T> {
        for _ in 0..INTERRUPTIONS {
            let nlas = vec![WgDeviceAttrs::IfName(interface.to_owned())];
            let message = Wireguard { cmd: WireguardCmd::GetDevice, nlas };
            self.send(self.addressed(message), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut all = T::default();
            let whole = self.answers(|part: Wireguard| take(&mut all, part.nlas));
            // The first piece had the private key.
            self.buffer[..].zeroize();
            if whole? {
                return Ok(all);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the device changes all the time"))
    }

    fn addressed(&self, message: Wireguard) -> GenlMessage<Wireguard> {
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(self.family);
        message
    }

    fn resolve(&mut self) -> io::Result<u16> {
        let nlas = vec![FamilyName("wireguard".to_owned())];
        let ask = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas });
        self.send(ask, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut family = None;
        self.answers(|answer: GenlCtrl| {
            let id = |nla: &_| if let FamilyId(id) = nla { Some(*id) } else { None };
            family = answer.nlas.iter().find_map(id).or(family);
        })?;
        family.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn send<T>(&mut self, message: GenlMessage<T>, flags: u16) -> io::Result<()>
    where
        GenlMessage<T>: NetlinkSerializable + Into<NetlinkPayload<GenlMessage<T>>>,
    {
        let mut message = NetlinkMessage::from(message);
        self.sequence = self.sequence.wrapping_add(1);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let length = message.buffer_len();
        if length > self.buffer.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a message of more than 32 KB",
            ));
        }
        self.buffer[..length].fill(0);
        message.serialize(&mut self.buffer[..length]);
        let sent = send(self.socket.as_raw_fd(), &self.buffer[..length], MsgFlags::empty());
        self.buffer[..length].zeroize();
        sent?;
        Ok(())
    }

    /// Takes what comes until the kernel says that this was all; whether it is of one moment.
    fn answers<T>(&mut self, mut take: impl FnMut(T)) -> io::Result<bool>
    where
        GenlMessage<T>: NetlinkDeserializable,
    {
        let mut whole = true;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkMessage::<GenlMessage<T>>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let length = message.header.length as usize;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    // The answer to a request that was given up.
                    continue;
                }
                whole &= message.header.flags & INTERRUPTED == 0;
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::InnerMessage(message) => take(message.payload),
                    _ => {}
                }
            }
        }
    }
}
