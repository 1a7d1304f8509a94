//! Domain types and rules: no SQL, no HTTP, no clock.
//!
//! [`rules`] contains the decisions on locks, [`handoff`] those on knocks and handovers, and [`rights`] who may do
//! what. [`access`] contains the settings that change the rules. [`event`] contains the history.

pub mod access;
pub mod event;
pub mod grace;
pub mod grants;
pub mod handoff;
mod id;
mod kind;
pub mod knocks;
mod lease;
pub mod lfs;
pub mod member;
mod name;
mod request;
pub mod rights;
pub mod rules;
pub mod token;
pub mod waitlist;

pub use id::{
    ID_BYTES, LFS_BYTES, MESSAGE_BYTES, METADATA_BYTES, NAME_BYTES, NOTE_BYTES, SESSION_BYTES, SessionId,
    UserId, WorkspaceId,
};
pub use kind::{KindProperties, LockKind, Owner};
pub use lease::{Fence, GrantState, LastLease, Lock, Moment, WorkspaceState};
pub use name::DisplayName;
pub use request::{
    Acquire, Acquired, Activity, Authority, Claim, Force, Heartbeat, HeartbeatOutcome, Release, Released,
};
