//! The proxy, with nginx's command line.

fn main() {
    std::process::exit(dysvr_node::master::run(dysvr_node::master::options::Options::from_command_line()));
}
