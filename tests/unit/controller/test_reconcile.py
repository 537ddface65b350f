"""A run through its life, one thing at a time."""

from tests.unit.controller.world import NAME, Operator, World


def test_a_run_goes_to_its_end() -> None:
    world = World()
    operator = Operator(world)
    lines = []
    for _ in range(200):
        operator.see()
        operator.look()
        lines.append(world.status.get("message"))
        world.tick(5)
        if world.status.get("state") == "succeeded":
            break
    for l in dict.fromkeys(lines): print(l)
    for e in world.events: print(e)
    print(world.writes, world.made)
    import json; print(json.dumps(world.status, indent=1))
    assert world.status["state"] == "succeeded"
