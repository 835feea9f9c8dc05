//! Who may do what, and how much of it.
//!
//! Place in the flow: step 3 (admit). In this version: bounds, and one password for everything. Users with rights of
//! their own come with the security work.

pub mod admit;
pub mod password;
