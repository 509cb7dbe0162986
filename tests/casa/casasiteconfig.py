"""CASA works from the measures data of the `casadata` wheel and downloads nothing."""

import casadata

measurespath = casadata.datapath
datapath = [casadata.datapath]
measures_auto_update = False
data_auto_update = False
