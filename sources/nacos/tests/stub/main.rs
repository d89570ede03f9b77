//! The source against a server made of answers: faults, and versions, that no real server here can show.

mod access;
mod lists;
mod pushes;
mod support;
mod versions;
