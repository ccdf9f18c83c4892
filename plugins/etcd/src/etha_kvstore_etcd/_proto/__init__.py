"""The messages of etcd's API, generated from ``etcd.proto`` beside this file; see CONTRIBUTING for the command."""
