//! Where to look for nodes: among all that changed, or among those that match certain selectors,
//! whichever are fewer.

use std::ops::{
    Bound::{Excluded, Unbounded},
    RangeBounds,
};

use wattle_model::{NodeId, Revision};

use crate::{cost, network::Network, sight::Reach};

/// A node in the order of last changes.
pub(crate) type Place = (Revision, NodeId);
/// Some nodes, in that order.
pub(crate) type Places<'a> = Box<dyn Iterator<Item = Place> + 'a>;

/// The last place of a revision is that of this id.
pub(crate) const LAST: NodeId = NodeId::new([0xff; NodeId::LEN]);

/// Changes that are walked rather than to ask where else to look.
const FEW: usize = 4;

impl Network {
    /// Every node that may be within reach and whose place lies after `place`, in order.
    pub(crate) fn changed_after(&self, place: Place, reach: impl FnOnce() -> Reach) -> Places<'_> {
        let changed = || self.by_change.range((Excluded(place), Unbounded));
        if changed().nth(FEW).is_some()
            && let Reach::Slots(slots) = reach()
            // To put a place in order costs more than to pass by one.
            && changed().nth(4 * self.selectors.count(&slots)).is_some()
        {
            return Box::new(self.places(&slots, (Excluded(place), Unbounded)).into_iter());
        }
        Box::new(changed().copied())
    }

    /// The places within a range of all nodes of which a body matches a selector in these slots, in
    /// order.
    pub(crate) fn places(&self, slots: &[u32], range: impl RangeBounds<Place>) -> Vec<Place> {
        let place = |id: &NodeId| {
            cost::node();
            Some((self.nodes.get(id)?.changed(), *id))
        };
        let places = slots.iter().flat_map(|slot| self.selectors.members(*slot));
        let places = places.filter_map(|id| place(&id)).filter(|place| range.contains(place));
        let mut places: Vec<Place> = places.collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// All nodes of which a body matches a selector in these slots.
    pub(crate) fn matching(&self, slots: &[u32]) -> Vec<NodeId> {
        let members = slots.iter().flat_map(|slot| self.selectors.members(*slot));
        let mut nodes: Vec<NodeId> = members.collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Whether a node has forgotten what it was at a revision after `since`.
    pub(crate) fn forgot_after(&self, since: Revision) -> bool {
        self.forgetful.range((Excluded((since, LAST)), Unbounded)).next().is_some()
    }
}
