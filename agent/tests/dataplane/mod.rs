//! Real devices in network namespaces of their own, driven through the `Kernel` trait: what the
//! userspace and the kernel's data plane must both do.

pub(crate) mod netns;
pub(crate) mod node;
pub(crate) mod scenes;
