//! The commands. The only room that prints and reads the environment.
