//! wattle-plan
