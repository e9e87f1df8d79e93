# The real wire, broken by a proxy: the server's services, the client and the disk in one process.
dims_test(fault_wire
  SOURCES wire_proxy.cc wire_world.cc wire_cut_test.cc
  DEPS dims_sim rdim_services dims_client
  LABELS fault TIMEOUT 900 PCH grpc_test)
