//! This device's policy-routing rules: two a family, known by who says to have made them and by
//! their priorities. Nobody else's are touched.

use std::{collections::BTreeSet, io};

use futures::TryStreamExt as _;
use rtnetlink::{
    Error, IpVersion,
    packet_route::{
        AddressFamily,
        route::RouteProtocol,
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage},
    },
};
use wattle_plan::{Family, Rule, RuleKind};

use super::netlink::{Netlink, to_io};

/// What we call ourselves in routes and rules; `ip` shows it as `proto 87`.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(87);

/// Before the main table's rule, 32766, and after what people number by hand.
const FIRST_PRIORITY: u32 = 10_000;
/// Devices of different marks have rules of different priorities.
const PRIORITIES: u32 = 10_000;

const MAIN: u32 = 254;
/// Default routes and the halves of one.
const SUPPRESSED: u32 = 1;

/// Our rules for the device of this mark.
pub(crate) async fn list(netlink: &Netlink, mark: u32) -> Result<BTreeSet<Rule>, Error> {
    let mut rules = BTreeSet::new();
    for (version, family) in [(IpVersion::V4, Family::V4), (IpVersion::V6, Family::V6)] {
        let mut messages = Box::pin(netlink.handle().rule().get(version).execute());
        while let Some(message) = messages.try_next().await? {
            rules.extend(kind(&message, mark).map(|kind| Rule { family, kind }));
        }
    }
    Ok(rules)
}

pub(crate) async fn add(netlink: &Netlink, rule: Rule, mark: u32) -> io::Result<()> {
    let mut request = netlink.handle().rule().add();
    *request.message_mut() = message(rule, mark);
    let added = match rule.family {
        Family::V4 => request.v4().execute().await,
        Family::V6 => request.v6().execute().await,
    };
    ignore(added, nix::libc::EEXIST)
}

pub(crate) async fn remove(netlink: &Netlink, rule: Rule, mark: u32) -> io::Result<()> {
    let removed = netlink.handle().rule().del(message(rule, mark)).execute().await;
    ignore(removed, nix::libc::ENOENT)
}

fn ignore(result: Result<(), Error>, harmless: i32) -> io::Result<()> {
    match result.map_err(to_io) {
        Err(error) if error.raw_os_error() == Some(harmless) => Ok(()),
        result => result,
    }
}

const fn priority(kind: RuleKind, mark: u32) -> u32 {
    let place = match kind {
        RuleKind::MainFirst => 0,
        RuleKind::OwnUnlessMarked => 1,
    };
    FIRST_PRIORITY + 2 * (mark % PRIORITIES) + place
}

fn message(rule: Rule, mark: u32) -> RuleMessage {
    let family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let mut header = RuleHeader { family, action: RuleAction::ToTable, ..RuleHeader::default() };
    let mut attributes =
        vec![RuleAttribute::Priority(priority(rule.kind, mark)), RuleAttribute::Protocol(PROTOCOL)];
    match rule.kind {
        RuleKind::MainFirst => attributes
            .extend([RuleAttribute::Table(MAIN), RuleAttribute::SuppressPrefixLen(SUPPRESSED)]),
        RuleKind::OwnUnlessMarked => {
            header.flags = RuleFlags::Invert;
            attributes.extend([RuleAttribute::Table(mark), RuleAttribute::FwMark(mark)]);
        }
    }
    let mut message = RuleMessage::default();
    (message.header, message.attributes) = (header, attributes);
    message
}

fn kind(message: &RuleMessage, mark: u32) -> Option<RuleKind> {
    if !message.attributes.contains(&RuleAttribute::Protocol(PROTOCOL)) {
        return None;
    }
    let has = |kind| message.attributes.contains(&RuleAttribute::Priority(priority(kind, mark)));
    [RuleKind::MainFirst, RuleKind::OwnUnlessMarked].into_iter().find(|kind| has(*kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_ours_by_maker_and_priority() {
        for kind_of_rule in [RuleKind::MainFirst, RuleKind::OwnUnlessMarked] {
            let mut ours = message(Rule { family: Family::V6, kind: kind_of_rule }, 0x5747);
            assert_eq!(kind(&ours, 0x5747), Some(kind_of_rule));
            assert_eq!(kind(&ours, 0x5748), None, "another device's");
            ours.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
            assert_eq!(kind(&ours, 0x5747), None, "somebody else's");
        }
    }
}
