//! Counts what an operation looks at, in tests only: the promise that one change costs the same in
//! a large network as in a small one is held by counting, not by a clock.

/// What was looked at.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost {
    pub(crate) nodes: usize,
    pub(crate) slots: usize,
    pub(crate) policies: usize,
}

#[cfg(test)]
thread_local! {
    static COST: std::cell::Cell<Cost> = const {
        std::cell::Cell::new(Cost { nodes: 0, slots: 0, policies: 0 })
    };
}

#[cfg(test)]
fn count(add: impl FnOnce(&mut Cost)) {
    COST.with(|cost| {
        let mut sum = cost.get();
        add(&mut sum);
        cost.set(sum);
    });
}

/// One node was looked at.
#[inline]
pub(crate) fn node() {
    #[cfg(test)]
    count(|cost| cost.nodes += 1);
}

/// One selector's slot was looked at.
#[inline]
pub(crate) fn slot() {
    #[cfg(test)]
    count(|cost| cost.slots += 1);
}

/// One policy was looked at.
#[inline]
pub(crate) fn policy() {
    #[cfg(test)]
    count(|cost| cost.policies += 1);
}

/// What `operation` looks at.
#[cfg(test)]
pub(crate) fn of<T>(operation: impl FnOnce() -> T) -> (Cost, T) {
    COST.with(|cost| cost.set(Cost::default()));
    let result = operation();
    (COST.with(std::cell::Cell::get), result)
}

#[cfg(test)]
mod tests;
