"""``ssan models``."""

from ssan.cli import options


def models(json: options.Json = False) -> int:
    """List the models with their parameters and multiply-adds."""
    from ssan.insight.cost import catalogue_rows

    rows = catalogue_rows()
    if json:
        options.show_json({"schema": 1, "models": rows})
        return options.DONE
    print(f"{'name':20} {'params':>9} {'multiply-adds':>13}  input          order  layer")
    for row in rows:
        size = f"{row['num_frames']} x {row['size_px']} px"
        print(
            f"{row['name']:20} {row['params'] / 1e6:7.2f} M {row['macs'] / 1e9:11.2f} G  {size:13}  "
            f"{'yes' if row['knows_order'] else 'no':5}  {row['layer'] or row['consensus'] or ''}"
        )
    return options.DONE
