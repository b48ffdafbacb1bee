//! Everything that needs more than one module: replay of real captures, the command line, real
//! sockets in namespaces, and the house rules.

mod tidy;
