"""What a training pod of the cluster's own tests runs: ranks meet over gloo and check that all of them took part."""

import os

import torch
import torch.distributed


def main() -> None:
    torch.distributed.init_process_group("gloo")
    value = torch.tensor([torch.distributed.get_rank() + 1.0])
    torch.distributed.all_reduce(value)
    world = torch.distributed.get_world_size()
    assert value.item() == world * (world + 1) / 2, value
    print(f"rank {os.environ['RANK']} of {world}: {value.item():.0f}", flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


main()
