//! Digests of sights, brought forward. What changed last is kept, so that a sum costs as much as
//! changed since it was asked for, and a sum that is made anew costs little more than the smaller
//! ones of the selectors that it is made from.

use std::collections::VecDeque;

use wattle_model::Digest;

use crate::{
    class::Class,
    cost,
    network::Network,
    sight::{Selected, Sight},
};

/// Changes kept. A sum that was last asked for before them is made anew.
const KEPT: usize = 1024;

/// What a node adds to the sums of those who see its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) class: Class,
    pub(crate) digest: Digest,
}

/// What the sums of one network go by.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    /// Of every live node's entry.
    total: Digest,
    /// How many changes there were ever.
    changes: u64,
    /// The last of them: what a node weighed, and what it weighs.
    log: VecDeque<(Option<Weight>, Option<Weight>)>,
}

impl Sums {
    /// A node that weighed one thing weighs another. Gives back what is forgotten for it.
    pub(crate) fn change(
        &mut self,
        was: Option<Weight>,
        now: Option<Weight>,
    ) -> impl Iterator<Item = Weight> {
        if let Some(was) = &was {
            self.total -= was.digest;
        }
        if let Some(now) = &now {
            self.total += now.digest;
        }
        self.changes += 1;
        self.log.push_back((was, now));
        let forgotten = if self.log.len() > KEPT { self.log.pop_front() } else { None };
        forgotten.into_iter().flat_map(|(was, now)| was.into_iter().chain(now))
    }

    /// The changes after the first `from`, if they are all kept.
    fn since(&self, from: u64) -> Option<impl Iterator<Item = &(Option<Weight>, Option<Weight>)>> {
        let missed = usize::try_from(self.changes - from).ok()?;
        let first = self.log.len().checked_sub(missed)?;
        Some(self.log.range(first..))
    }
}

impl Network {
    /// The digest of everything in a sight now. The sight is one that somebody has now.
    pub(crate) fn digest(&self, sight: &Sight) -> Digest {
        match sight {
            Sight::Nobody | Sight::Unknown => Digest::EMPTY,
            Sight::Everybody => self.sums.total,
            Sight::Selected(selected) => match selected.partners() {
                [one] => self.selectors.get(*one).sum,
                partners => self.brought_forward(sight, selected, partners),
            },
        }
    }

    fn brought_forward(&self, sight: &Sight, selected: &Selected, partners: &[u32]) -> Digest {
        let mut kept = selected.digest();
        let known = kept.and_then(|(from, sum)| Some((self.sums.since(from)?, sum)));
        let sum = match known {
            Some((changes, mut sum)) => {
                for (was, now) in changes {
                    cost::node();
                    let held = |weight: &&Weight| sight.holds(&weight.class);
                    was.iter().filter(held).for_each(|was| sum -= was.digest);
                    now.iter().filter(held).for_each(|now| sum += now.digest);
                }
                sum
            }
            None => self.summed(partners),
        };
        *kept = Some((self.sums.changes, sum));
        sum
    }

    /// Of all that match any of several selectors: the largest sum of one, and each node of the
    /// others that it doesn't hold.
    fn summed(&self, partners: &[u32]) -> Digest {
        let members = |slot: u32| self.selectors.get(slot).members;
        let mut order: Vec<u32> = partners.to_vec();
        order.sort_unstable_by_key(|slot| std::cmp::Reverse(members(*slot)));
        let Some((largest, others)) = order.split_first() else { return Digest::EMPTY };
        let mut counted = vec![*largest];
        let mut sum = self.selectors.get(*largest).sum;
        for slot in others {
            for weight in self.selectors.members(*slot).filter_map(|id| self.weight(id)) {
                let new = !crate::sight::meet(weight.class.slots(), &counted);
                if new && weight.class.has(*slot) {
                    sum += weight.digest;
                }
            }
            counted.insert(counted.partition_point(|other| other < slot), *slot);
        }
        sum
    }
}
