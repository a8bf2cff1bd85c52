//! The host's routes, read only: the overlay's own come with the link's addresses, whose prefix
//! length is the network's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    Error, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::netlink::Netlink;

/// Where packets for a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    /// The interface's index; `None` for a route with several next hops.
    pub(crate) interface: Option<u32>,
}

/// All routes that send packets somewhere, of both families and every table: not the kernel's own
/// local and broadcast ones, nor those that refuse.
pub(crate) async fn list(netlink: &Netlink) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for request in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let mut messages = netlink.handle().route().get(request).execute();
        while let Some(message) = messages.try_next().await? {
            routes.extend(Route::of(&message));
        }
    }
    Ok(routes)
}

impl Route {
    fn of(message: &RouteMessage) -> Option<Self> {
        if message.header.kind != RouteType::Unicast {
            return None;
        }
        let (mut address, mut interface) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4))
                }
                RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6))
                }
                RouteAttribute::Oif(index) => interface = Some(*index),
                _ => {}
            }
        }
        // A default route has no destination.
        let destination = IpNet::new(address?, message.header.destination_prefix_length).ok()?;
        Some(Self { destination, interface })
    }
}
