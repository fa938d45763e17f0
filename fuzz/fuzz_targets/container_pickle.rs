//! PyTorch's archive of a pickle and its storages; every input is read a second time with a name to be called in front, and
//! must be refused.
#![no_main]

exegete_fuzz::container_target!(exegete_fuzz::containers::Container::Pickle);
